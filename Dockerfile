# The daemon as an image. docs/deploy.md says how it is run.
#
#   docker build --tag coreflow .
#
# BASE needs Python 3.11 or newer with its venv module, and nothing else: python:3.11-slim, or Debian with python3-venv.
# Without a way to PyPI: put wheels into a folder `wheels` here, and give the build arguments
# PIP_NO_INDEX=1 and PIP_FIND_LINKS=/source/wheels.
ARG BASE=python:3.11-slim

FROM ${BASE} AS builder
# Such as `age`, for cluster files with encrypted values.
ARG EXTRAS
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
ARG PIP_INDEX_URL
# The tools that install stay here. What is installed has no pip of its own.
RUN python3 -m venv /tools && python3 -m venv --without-pip /opt/coreflow
WORKDIR /source
COPY . .
RUN /tools/bin/python -m pip --python /opt/coreflow/bin/python install \
      --quiet --no-cache-dir --disable-pip-version-check --constraint constraints.txt ".${EXTRAS:+[${EXTRAS}]}"

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="coreflow" \
      org.opencontainers.image.description="Keeps a Docker Swarm in the state that records describe" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=builder /opt/coreflow /opt/coreflow
# Nothing is written to the file system, so it may be read-only, without a tmpfs.
ENV PATH=/opt/coreflow/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /etc/coreflow
# Whoever runs it adds the group that may use the socket of the engine: docker run --group-add.
USER 65532:65532
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["coreflow", "health"]
ENTRYPOINT ["coreflow"]
CMD ["run"]
