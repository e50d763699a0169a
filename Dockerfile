# The image of every service of ours: `docker run IMAGE ingest`, `docker run IMAGE work finished`, any `tiw` command.

FROM python:3.13-slim AS build
# Wheels only, and only the ones whose hashes are pinned: nothing is compiled, nothing unknown is installed.
# With what S3 and COS take as an archive (archive/); `--build-arg TIW_REQUIREMENTS=runtime` leaves it out, 30 MB.
ARG TIW_REQUIREMENTS=s3
COPY requirements/${TIW_REQUIREMENTS}.txt /requirements.txt
RUN python -m venv --without-pip /opt/tiw \
 && pip --python /opt/tiw/bin/python install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --only-binary=:all: --require-hashes --requirement /requirements.txt
# What the consumers of users need. Where it cannot be installed, all others run, and those say so when they are loaded.
COPY plugins /plugins
COPY deploy/plugins.sh /plugins.sh
RUN /plugins.sh /opt/tiw /plugins /requirements.txt pip --no-cache-dir \
 || echo "plugins/requirements.txt is NOT INSTALLED, see above: correct it, then build again; if it was right, with --no-cache"
# What .dockerignore lets through: the packages and the scripts of deploy/image.
COPY . /app
RUN mv /app/deploy/image /opt/tiw/scripts && rm -r /app/deploy /app/plugins /app/requirements && python -m compileall -q /app

FROM python:3.13-slim
LABEL org.opencontainers.image.title="tiw-callbacks" \
      org.opencontainers.image.description="Receives the recording callbacks of Tencent Interactive Whiteboard and never loses one." \
      org.opencontainers.image.licenses="Apache-2.0"
# A fixed uid, so that volumes keep their owner across builds. A named volume takes the owner of the folder that it is
# first mounted over (https://docs.docker.com/engine/storage/volumes/#populate-a-volume-using-a-container).
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/tiw --shell /usr/sbin/nologin tiw \
 && install -d -o tiw -g tiw -m 0700 /var/lib/tiw /secrets/broker /secrets/console /secrets/database
COPY --from=build /opt/tiw /opt/tiw
COPY --from=build /app /app
ENV PATH=/opt/tiw/scripts:/opt/tiw/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TIW_DATA_DIR=/var/lib/tiw
WORKDIR /var/lib/tiw
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["tiw-alive"]
ENTRYPOINT ["tiw"]
CMD ["--help"]
