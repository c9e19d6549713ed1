# docker build -t nightjar .          (behind a proxy that re-signs HTTPS: --secret id=ca_bundle,src=FILE)
# docker run --rm -v "$PWD/out:/work" nightjar demo
# docker run --rm -v WORKSPACE:/work nightjar run /work     (writes as the owner of WORKSPACE)
FROM debian:trixie-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv ca-certificates \
 && rm -rf /var/lib/apt/lists/*
COPY requirements.lock /src/
RUN --mount=type=secret,id=ca_bundle,target=/run/secrets/ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then \
      export PIP_CERT=/run/secrets/ca_bundle SSL_CERT_FILE=/run/secrets/ca_bundle; fi; \
    python3 -m venv /opt/nightjar/venv \
 && /opt/nightjar/venv/bin/pip install --no-cache-dir --require-hashes -r /src/requirements.lock
COPY . /src/
RUN /opt/nightjar/venv/bin/pip install --no-cache-dir --no-build-isolation --no-deps /src

FROM debian:trixie-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 make \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 nightjar \
 && mkdir -p /work /opt/nightjar/numba \
 && chmod 1777 /work \
 && chown -R nightjar /opt/nightjar
COPY --from=build --chown=nightjar /opt/nightjar/venv /opt/nightjar/venv
COPY --chmod=755 docker-entrypoint.sh /opt/nightjar/entrypoint
ENV PATH=/opt/nightjar/venv/bin:$PATH \
    NUMBA_CACHE_DIR=/opt/nightjar/numba \
    MPLCONFIGDIR=/tmp/matplotlib \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# No USER: the entry point becomes the owner of /work, or, where nothing is mounted, uid 1000.
WORKDIR /work
# The pixel loops are compiled once, here, by running the whole pipeline on a tiny campaign; whoever
# runs the container may add to them.
RUN /opt/nightjar/entrypoint demo /tmp/warm && rm -rf /tmp/warm && chmod -R a+rwX /opt/nightjar/numba
ENTRYPOINT ["/opt/nightjar/entrypoint"]
CMD ["--help"]
