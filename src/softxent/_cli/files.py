"""Files that are written: each appears whole or not at all. The error for users that all modules raise is here too."""

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

BLOCK_BYTES = 1 << 26  # bytes of a file at a time: enough to keep every thread busy, and few enough for a quick Ctrl-C


class CommandError(Exception):
    """An error that the user can correct. It is printed in one line, without a traceback."""


class Output(NamedTuple):
    """A file that is being written."""

    path: str  # the name that the user gave
    temporary: Path  # the name until the file is whole


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[Output]:
    """Make an empty temporary file beside `path`, which takes the place of `path` if the block succeeds.

    After an error or Ctrl-C the temporary file is removed, and `path` is unchanged. The mode of an existing file is
    kept. A symbolic link is followed.
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
        traceback.clear_frames(error.__traceback__)  # drops its map, because Windows does not remove a mapped file
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _mode_to_keep(path: str, final: Path) -> int | None:
    """The mode of the file that is to be replaced. None if there is no such file. Refuses a file that may not be
    replaced.
    """
    with unwritable(path):
        try:
            status = final.stat()
        except FileNotFoundError:
            return None
    if not stat.S_ISREG(status.st_mode):
        raise CommandError(f"{path}: cannot be written: it is not a regular file")
    mode = stat.S_IMODE(status.st_mode)
    if not mode & 0o222 or not os.access(final, os.W_OK):  # root may write to any file, but did not ask for that here
        raise CommandError(f"{path}: is there and read-only (mode {mode:04o}): make it writable, or name another file")
    return mode


@contextlib.contextmanager
def unwritable(path: str) -> Iterator[None]:
    """Raise an error of the operating system as one of writing `path`."""
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
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # the file system may not support it
                raise
    for start in range(0, n_bytes, BLOCK_BYTES):
        file.write(bytes(min(BLOCK_BYTES, n_bytes - start)))
