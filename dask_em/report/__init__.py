"""What a person reads after a fit: the profile of the segments, figures, and one self-contained page."""

from dask_em.report.page import Section, render, write
from dask_em.report.profile import segment_profile

__all__ = ["Section", "render", "segment_profile", "write"]
