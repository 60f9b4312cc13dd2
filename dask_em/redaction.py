"""Text and settings without their secrets: for whatever is printed, logged or saved.

A secret is what stands in a URL before its host or after its question mark (`s3://key:secret@bucket`, `?sig=...`), and the value of an option whose
name says that it is one: of what is passed on to others, for elsewhere in a job such a name is that of a column. Secrets belong in the environment or in files, but one that was written elsewhere must still not be repeated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

# One slash is what pathlib leaves of two. A password may hold slashes, so after a colon everything up to the last @ is taken for one.
_SCHEME = r"\b[A-Za-z][A-Za-z0-9+.-]+:/{1,2}"
_USER = re.compile(rf"""({_SCHEME})(?:[^\s'"<>/:]*:[^\s'"<>]*|[^\s'"<>/]*)@""")
_QUERY = re.compile(rf"""({_SCHEME}[^\s'"<>?#]*[?#])[^\s'"<>]*=[^\s'"<>]*""")
_SECRET = r"(?:password|passwd|passphrase|secret|token|credentials?|authorization|signature|(?:secret|private|access|api|account|shared|encryption)_?(?:access_?)?key)"
_GIVEN = re.compile(rf"""({_SECRET}(?:['"]\s*:|\s*=)\s*['"]?)[^\s'",;&)}}]+""", re.IGNORECASE)
_NAMED = re.compile(rf"{_SECRET}$", re.IGNORECASE)


def redacted(value: Any, *, options: bool = False) -> Any:
    """The same text or settings with `***` in the place of every secret.

    Parameters
    ----------
    value : text, a path, or mappings, lists and tuples of such; anything else is returned as it is
    options : whether the names in it are those of options; those below a name that ends in "options" are in any case
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        without_user = _USER.sub(rf"\1{HIDDEN}@", value)
        return _GIVEN.sub(rf"\1{HIDDEN}", _QUERY.sub(rf"\1{HIDDEN}", without_user))
    if isinstance(value, Mapping):
        return {name: _setting(str(name), own, options) for name, own in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(redacted(own, options=options) for own in value)
    return value


def _setting(name: str, value: Any, options: bool) -> Any:
    plain = value is None or isinstance(value, (bool, Mapping))
    if options and not plain and (_NAMED.search(name) or name.lower() in ("key", "auth", "pass")):
        return HIDDEN
    return redacted(value, options=options or name.endswith("options"))
