"""Spark MLlib's GaussianMixture as a contestant; it takes no start, so it draws its own."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.clustering import GaussianMixture
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import SparkSession
from serve import serve


def prepare(X: np.ndarray, settings: dict[str, Any], start: dict[str, np.ndarray]) -> tuple[Any, int, int]:
    """The rows as a cached frame of vectors, through a Parquet file beside the task."""
    builder = SparkSession.builder.master(f"local[{settings['threads']}]")
    local = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.ui.enabled": "false"}
    for key, value in {**local, "spark.driver.memory": "4g"}.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    names = [f"x{j}" for j in range(X.shape[1])]
    path = Path(mkdtemp(dir=Path(settings["folder"]))) / "X.parquet"
    pq.write_table(pa.table(dict(zip(names, X.T))), path)
    frame = VectorAssembler(inputCols=names, outputCol="features").transform(session.read.parquet(str(path)))
    frame = frame.select("features").cache()
    frame.count()
    return frame, settings["k"], len(X)


def fit(task: tuple[Any, int, int], steps: int) -> Any:
    frame, k, _ = task
    return steps, GaussianMixture(k=k, maxIter=steps, tol=0.0, seed=1).fit(frame)


def found(fitted: tuple[int, Any]) -> tuple[int, dict[str, np.ndarray]]:
    _, model = fitted
    normals = model.gaussiansDF.collect()
    return model.summary.numIter, {
        "weights": np.array(model.weights),
        "means": np.array([row["mean"].toArray() for row in normals]),
        "covariances": np.array([row["cov"].toArray() for row in normals]),
    }


if __name__ == "__main__":
    serve("pyspark", prepare, fit, found)
