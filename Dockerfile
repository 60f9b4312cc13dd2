# One image for the scheduler, the workers and the job: they must agree on every version.
ARG BASE=python:3.11-slim
FROM ${BASE}

WORKDIR /app
RUN pip install --no-cache-dir uv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY dask_em dask_em
COPY pipelines pipelines
RUN uv pip install --system --no-cache -c constraints.txt ".[fast,report,s3,datasets]"
COPY conf conf

# A volume mounted on output/ takes over this owner.
RUN useradd --create-home --uid 1000 em && mkdir output && chown em:em output
USER em
ENV MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba

CMD ["dask-em", "--help"]
