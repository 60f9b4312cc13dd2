"""The few things that are done to a disk where an order of steps matters, each durable when it returns.

Everything that commits an output or keeps a checkpoint goes through these functions, so that a test can let any one of them fail, or let the machine stop after it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT}
"""There is no room."""

FAILING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
"""The disk, or the network before it, does not do what it should, and may again."""


def write(path: Path, content: bytes) -> None:
    """Make or overwrite a file."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(path: Path, target: Path) -> None:
    """Move a file over another, or a folder to a name that nothing has."""
    os.replace(path, target)


def exchange(path: Path, target: Path) -> bool:
    """Let two folders change places in one step; False where the file system cannot."""
    at_cwd, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return renameat2(at_cwd, os.fsencode(path), at_cwd, os.fsencode(target), flag) == 0


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Give a file new contents: whoever looks finds the old ones or the new ones, also after a crash."""
    beside = path.with_name(f".{path.name}.new")
    write(beside, content)
    rename(beside, path)
    sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Wait until everything in a folder is on the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            sync(Path(root) / name)
        sync(Path(root))
