"""What a person reads after a fit: figures, one self-contained page, and words for a terminal."""

from dask_em.report.page import Section, render, write

__all__ = ["Section", "render", "write"]
