"""The four IDX files of a data set: their names, bytes, and hash.

The format is MNIST's own: two zero bytes, the type (8 for unsigned bytes), the
number of dimensions, each dimension as a big-endian 32-bit integer, the values.
"""

import hashlib
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

UNSIGNED_BYTES = 0x08


def to_idx(values: NDArray[np.uint8]) -> bytes:
    """Returns an array of unsigned bytes, of any shape, as an IDX file's content."""
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, UNSIGNED_BYTES, values.ndim, *values.shape)
    return header + values.tobytes()


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Returns the unsigned bytes in an IDX file, in their shape.

    Raises:
        TrainingError: if the file is missing, truncated, or no IDX file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be read ({error.strerror}): run `make data`."
        ) from error
    if content[:3] != bytes([0, 0, UNSIGNED_BYTES]):
        raise damaged(path)
    start = 4 + 4 * content[3]
    try:
        shape = struct.unpack(f">{content[3]}I", content[4:start])
        return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    except (struct.error, ValueError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> TrainingError:
    """Returns the error for a file of ours that is not what it was."""
    return TrainingError(
        f"{path} is truncated or altered: delete {path.parent}, then run `make data`."
    )


def sha256(path: Path) -> str:
    """Returns a file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dataset_sha256(folder: Path) -> str:
    """Returns a data set's hash: SHA-256 over its four files' bytes, one after another."""
    total = hashlib.sha256()
    for name in NAMES:
        total.update((folder / name).read_bytes())
    return total.hexdigest()
