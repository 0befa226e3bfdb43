"""Files that are either written whole or not at all."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.errors import TrainingError


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns the system's refusal to write below `path` into a sentence.

    Raises:
        TrainingError: if anything in the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written ({error.strerror or error}): make room or make it writable, "
            "or choose another folder."
        ) from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path that takes the place of `path` when the block succeeds.

    It has the same suffix, and lies in the same folder, which is made if
    missing, because only a rename within one file system is atomic.

    Raises:
        TrainingError: if the folder or the file cannot be written.
    """
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp's files are private to their owner; ours are for all to read.
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON to `path`, atomically.

    Raises:
        TrainingError: if the file cannot be written.
    """
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
