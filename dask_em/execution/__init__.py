"""Where scans run: in this process (local) or on a Dask cluster (dask), with the same bits."""
