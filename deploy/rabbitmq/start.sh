#!/bin/sh
# Hands the broker its user and password, then runs the image's own entry point. A wrapper, because the image refuses
# RABBITMQ_DEFAULT_PASS_FILE (https://github.com/docker-library/rabbitmq/blob/master/docker-entrypoint.sh).
set -eu
password=/secrets/broker/password
if [ ! -s "$password" ]; then
  echo "start.sh: there is no $password yet; the service secrets makes it" >&2
  exit 1 # and is started again by its restart policy
fi
RABBITMQ_DEFAULT_USER=tiw
RABBITMQ_DEFAULT_PASS=$(cat "$password")
export RABBITMQ_DEFAULT_USER RABBITMQ_DEFAULT_PASS
exec docker-entrypoint.sh "$@"
