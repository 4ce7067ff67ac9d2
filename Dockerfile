# Targets, the last being the default:
#   gpu    every program, torch and FAISS for NVIDIA GPUs    docker build --target gpu -t drdecr:gpu .
#   train  every program, torch for CPUs                     docker build --target train -t drdecr:train .
#   ray    a node of a Ray cluster, and the front of one docker build --target ray -t drdecr:ray .
#   cpu    the service, the index and the encoder, no torch  docker build -t drdecr .
# PyPI's torch for Linux brings CUDA, several gigabytes. Without it: put the address of PyTorch's own index of CPU builds
# (see pytorch.org, "Get started") into PIP_EXTRA_INDEX_URL, and add `--build-arg PIP_EXTRA_INDEX_URL` for `train`.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim-bookworm AS source
RUN python -m venv /opt/drdecr
ENV PATH=/opt/drdecr/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The versions are bounded in pyproject.toml, which hadolint does not read: hence the ignored DL3013 below.
COPY pyproject.toml README.md LICENSE ./
COPY drdecr drdecr
COPY indexer indexer
COPY service service
COPY training training

FROM source AS install-gpu
ARG TORCH="torch>=2.9,<3"
ARG PIP_EXTRA_INDEX_URL
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip pip install "${TORCH}" && pip install '.[gpu,train]'

FROM source AS install-train
# The exact version first and alone: what is installed after it keeps this build.
ARG TORCH="torch==2.13.0"
ARG PIP_EXTRA_INDEX_URL
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip pip install "${TORCH}" && pip install '.[cpu,train]'

# The extras cpu, demo, otel and pool, in exactly the versions and bytes of the lock file (`make lock` renews it).
FROM source AS install-cpu
COPY requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes --requirement requirements.lock && pip install --no-deps .

FROM source AS install-ray
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip pip install '.[cpu,otel,pool,ray]' s3fs

FROM python:${PYTHON_VERSION}-slim-bookworm AS runtime
# A volume that is first mounted at /indexes takes its owner from here.
RUN useradd --uid 10001 --create-home drdecr && mkdir /data /indexes /cache && chown drdecr /data /indexes /cache
# numba's compiled kernels go to /tmp, so that the root file system may be read-only.
ENV PATH=/opt/drdecr/bin:$PATH PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/tmp/numba
WORKDIR /data
USER 10001
ENTRYPOINT ["drdecr"]

FROM runtime AS gpu
COPY --from=install-gpu /opt/drdecr /opt/drdecr
CMD ["--help"]

FROM runtime AS train
COPY --from=install-train /opt/drdecr /opt/drdecr
CMD ["--help"]

FROM runtime AS ray
COPY --from=install-ray /opt/drdecr /opt/drdecr
# What a node runs is said where it is started: docker-compose.ray.yml, deploy/kuberay.
ENV DRDECR_HOST=0.0.0.0 DRDECR_PORT=8080 DRDECR_CACHE=/cache RAY_USAGE_STATS_ENABLED=0
EXPOSE 8080
CMD ["--help"]

FROM runtime AS cpu
COPY --from=install-cpu /opt/drdecr /opt/drdecr
# The released student, for indexes of one's own (`--student /opt/models/drdecr-16`) and for the demo.
COPY models/drdecr-16 /opt/models/drdecr-16
# What `drdecr quickstart` leaves, mounted at /data, is served as it is.
ENV DRDECR_HOST=0.0.0.0 DRDECR_PORT=8080 DRDECR_STUDENT=/data/student DRDECR_INDEX=demo=/data/snapshot
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['DRDECR_PORT']}/readyz\", timeout=4)"]
CMD ["serve"]
