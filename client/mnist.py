"""Reads the test images of MNIST, or of the embedded digits, with nothing but numpy.

Both lie in the same four IDX files, packed by gzip or not: two zero bytes, the type
(8 for unsigned bytes), the number of dimensions, each dimension as a big-endian
32-bit integer, the values (https://yann.lecun.com/exdb/mnist).
"""

import gzip
import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

CHOICES = ("auto", "mnist", "digits")
FOLDERS = {"mnist": Path("MNIST/raw"), "digits": Path("digits/raw")}
# In the order in which the data set's hash covers them.
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# Of the files as published, by the MD5 sums that torchvision knows.
MNIST_SHA256 = "b2d8f5bf39174ee5ffeefa97e42d673c35432b411bb5d1f74fbbeddae7f1690a"

_DIGITS = 10
_UNSIGNED_BYTES = 8


class DatasetError(Exception):
    """The data set is not here, or not whole; the message says what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The test images of a data set.

    Attributes:
        name: "mnist" or "digits".
        sha256: Of all four decompressed files, training images included, in their
            order: what a model's `dataset_sha256` is.
        images: uint8 [n, 28, 28], 0 is background.
        labels: uint8 [n], the digits that they show.
    """

    name: str
    sha256: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def load(choice: str, root: Path) -> Dataset:
    """Reads a data set.

    Args:
        choice: "mnist", "digits", or "auto" for the first of the two that is here.
        root: The data folder. MNIST is also looked for in the folder that the
            environment's MNIST_SOURCE names.

    Raises:
        DatasetError: It is not here, or truncated or altered.
    """
    names = tuple(FOLDERS) if choice == "auto" else (choice,)
    for name in names:
        for folder in _folders(name, root):
            if any(_find(folder, file) for file in FILES):
                return _read(name, folder)
    if choice == "digits":
        raise DatasetError(f"There are no digits in {root}: run `make data DATASET=digits`.")
    raise DatasetError(
        f"MNIST is not in {root}: run `make data`, or set MNIST_SOURCE to a folder with its "
        "four .gz files."
    )


def _folders(name: str, root: Path) -> list[Path]:
    folders = [root / FOLDERS[name]]
    if name == "mnist" and (source := os.environ.get("MNIST_SOURCE")):
        folders.append(Path(source))
    return folders


def _find(folder: Path, file: str) -> Path | None:
    candidates = (folder / file, folder / f"{file}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _read(name: str, folder: Path) -> Dataset:
    digest = hashlib.sha256()
    contents = []
    for file in FILES:
        contents.append(_content(folder, file))
        digest.update(contents[-1])
    damaged = DatasetError(
        f"The files in {folder} are truncated or altered: delete them and run `make data`."
    )
    try:
        images, labels = (_array(content) for content in contents[2:])
    except (ValueError, struct.error) as error:
        raise damaged from error
    sha256 = digest.hexdigest()
    if (
        (name == "mnist" and sha256 != MNIST_SHA256)
        or images.shape != (len(labels), 28, 28)
        or labels.max(initial=0) >= _DIGITS
    ):
        raise damaged
    return Dataset(name, sha256, images, labels)


def _content(folder: Path, file: str) -> bytes:
    path = _find(folder, file)
    if path is None:
        raise DatasetError(f"{folder / file} is missing: run `make data`.")
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetError(
            f"{path} is truncated or altered: delete it and fetch it again."
        ) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error


def _array(content: bytes) -> npt.NDArray[np.uint8]:
    zeros, kind, dimensions = struct.unpack_from(">HBB", content)
    if (zeros, kind) != (0, _UNSIGNED_BYTES):
        raise ValueError("not an IDX file of unsigned bytes")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
