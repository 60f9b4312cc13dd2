"""What can go wrong, each with the exit code that a scheduler can act on.

    DaskEMError                    1   a bug, unless a subclass says otherwise
    ├── ConfigurationError         2   usage or configuration: an argument, a key of a YAML file
    ├── NotConvergedError          3   asked for with --strict
    ├── DataError                  4   data missing, bad or changed
    ├── OutputError                5   output in use or not empty
    ├── TryAgainError             75   cluster or storage; the same command may succeed later
    ├── IntegrityError             1   an observed cell changed on the way: a bug
    └── ObjectiveDecreasedError    1   EM may never lower its objective, so this is a bug

A message is one sentence that says what is wrong, where (file, column, key, line) and the remedy. It never
holds a data value: data may be personal. Secrets in it, such as the password of a URL, are taken out here.
"""

from dask_em.redaction import redacted


class DaskEMError(Exception):
    """Root of every error that this package raises on purpose."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*map(redacted, args))


class ConfigurationError(DaskEMError, ValueError):
    """An argument or a key of a configuration file cannot be used."""

    exit_code = 2


class NotConvergedError(DaskEMError):
    """The fit reached max_iter, and the caller asked for an error in that case."""

    exit_code = 3


class DataError(DaskEMError, ValueError):
    """The data are missing, unreadable, or not what the model needs."""

    exit_code = 4


class ColumnTypeError(DataError):
    """A column of a type that cannot be read; its name, and the type."""

    column = kind = ""


class OutputError(DaskEMError):
    """The output folder is in use or not empty."""

    exit_code = 5


class TryAgainError(DaskEMError):
    """The cluster or the storage failed; nothing is wrong with the request."""

    exit_code = 75


class IntegrityError(DaskEMError):
    """What was written is not what came in, beyond the cells that were to be filled."""


class ObjectiveDecreasedError(DaskEMError, ArithmeticError):
    """An EM step lowered the objective by more than rounding can."""


class ConvergenceWarning(UserWarning):
    """The fit stopped before its stopping rule was met, or a start was dropped."""
