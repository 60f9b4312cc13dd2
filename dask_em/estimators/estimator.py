"""What all estimators share: the names of columns, clones and pickles without a connection, and what a notebook shows."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator


class Estimator(BaseEstimator):
    """An estimator on dataframes with scikit-learn's interface; missing cells are welcome. Use one of its subclasses."""

    executor: Any
    n_features_in_: int

    def _keep_names(self, names: Sequence[str], *, named: bool) -> None:
        """Remember the columns of a table to fit, and their names if they are its own."""
        self.n_features_in_ = len(names)
        if named:
            self.feature_names_in_ = np.array(names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _errors(self, given: Any) -> Any:
        """Standard errors for the summary: the given ones, or those that are known already."""
        return given

    def _repr_html_inner(self) -> str:
        """The summary for a notebook; scikit-learn's picture of the settings before there is one."""
        from dask_em.report.html import html_of

        return html_of(self, self._errors(None)) if self.__sklearn_is_fitted__() else str(super()._repr_html_inner())

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        from dask_em.report.html import bundle_of

        return bundle_of(self) if self.__sklearn_is_fitted__() else dict(super()._repr_mimebundle_(**kwargs))

    def __sklearn_clone__(self) -> Any:
        """An unfitted copy of the settings; a client is a connection, which is shared."""
        bare = copy(self)
        bare.executor = None
        twin: Any = super(Estimator, bare).__sklearn_clone__()
        twin.executor = self.executor
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: a connection is left out, an address is not."""
        state: dict[str, Any] = super().__getstate__()
        return state if isinstance(self.executor, str) else {**state, "executor": None}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")
