#!/bin/sh
# Hands the broker its user and password, then runs the image's own entry point. A wrapper, because the image refuses
# RABBITMQ_DEFAULT_PASS_FILE (https://github.com/docker-library/rabbitmq/blob/master/docker-entrypoint.sh).
set -eu
password=/secrets/broker/password
# The service secrets makes it, at the first start, beside us.
trap 'exit 143' TERM
while [ ! -s "$password" ]; do sleep 0.2; done
RABBITMQ_DEFAULT_USER=tiw
RABBITMQ_DEFAULT_PASS=$(cat "$password")
export RABBITMQ_DEFAULT_USER RABBITMQ_DEFAULT_PASS
exec docker-entrypoint.sh "$@"
