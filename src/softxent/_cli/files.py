"""Files that are written: each appears whole or not at all. The error for the user, too, which all modules raise."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK_BYTES = 1 << 26  # of a file at a time: long enough to keep every thread busy, soon enough for Ctrl-C


class CommandError(Exception):
    """Something the user can put right: told in one line, without a traceback."""


class Output(NamedTuple):
    """A file that is being written."""

    path: str  # as the user named it
    temporary: Path  # what it is called until it is whole


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[Output]:
    """Make an empty temporary file beside `path`; it takes the place of `path` if the block succeeds.

    After an error or Ctrl-C the temporary file is gone and `path` is as it was. An earlier file's mode is kept. A
    symbolic link is followed.
    """
    final = Path(os.path.realpath(path))
    mode = _mode_to_keep(path, final)
    temporary = final.with_name(f".softxent-{secrets.token_hex(4)}.tmp")
    try:
        with unwritable(path):
            temporary.open("xb").close()
        yield Output(path, temporary)
        with unwritable(path):
            if mode is not None:
                temporary.chmod(mode)
            os.replace(temporary, final)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # drops its map: Windows does not remove a mapped file
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _mode_to_keep(path: str, final: Path) -> int | None:
    """The mode of the file that is to be replaced, if it may be; None if there is none."""
    with unwritable(path):
        try:
            status = final.stat()
        except FileNotFoundError:
            return None
    if not stat.S_ISREG(status.st_mode):
        raise CommandError(f"{path}: cannot be written: it is not a regular file")
    mode = stat.S_IMODE(status.st_mode)
    if not mode & 0o222 or not os.access(final, os.W_OK):  # root may write to any, but did not say so here
        raise CommandError(f"{path}: is there and read-only (mode {mode:04o}): make it writable, or name another file")
    return mode


@contextlib.contextmanager
def unwritable(path: str) -> Iterator[None]:
    """Tell an error of the system as one of writing `path`."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror or error}") from error


def new_npy(output: Output, dtype: np.dtype[Any], shape: tuple[int, ...], fortran_order: bool = False) -> Array:
    """A mapped .npy file of zeros, with room on the disk for all of it."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": fortran_order, "shape": shape}
    with unwritable(output.path):
        with open(output.temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            _reserve(file, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        return np.asarray(np.lib.format.open_memmap(output.temporary, mode="r+"))


def _reserve(file: BinaryIO, n_bytes: int) -> None:
    """Take the disk space now: writing to a mapped file on a disk that is full kills the process."""
    if hasattr(os, "posix_fallocate") and n_bytes > 0:
        try:
            os.posix_fallocate(file.fileno(), file.tell(), n_bytes)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # the file system may not know how
                raise
    for start in range(0, n_bytes, BLOCK_BYTES):
        file.write(bytes(min(BLOCK_BYTES, n_bytes - start)))
