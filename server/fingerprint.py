"""Tells whether a file has changed since it was last looked at."""

from pathlib import Path

# When it was last written, in nanoseconds, and its size; None where there is none.
Fingerprint = tuple[int, int] | None


def fingerprint(file: Path) -> Fingerprint:
    """Returns what a file has as long as nobody writes it."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
