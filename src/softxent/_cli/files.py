"""What the subcommands share: the error for the user, and the file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import traceback
from collections.abc import Iterator
from pathlib import Path


class CommandError(Exception):
    """Something the user can put right: told in one line, without a traceback."""


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[Path]:
    """Give the name of a temporary file beside `path`; it takes the place of `path` if the block succeeds.

    After an error or Ctrl-C the temporary file is gone and `path` is as it was. A symbolic link is followed.
    """
    final = Path(os.path.realpath(path))
    if final.exists() and not final.is_file():
        raise CommandError(f"{path}: cannot be written: it is not a regular file")
    temporary = final.with_name(f".softxent-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, final)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # drops its map: Windows does not remove a mapped file
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise CommandError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise
