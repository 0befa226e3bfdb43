"""The client reads data sets as they were written, and says what is wrong with them."""

import gzip
import hashlib
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from client.mnist import FILES, DatasetError, load


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with five small embedded digits, and no MNIST anywhere."""
    monkeypatch.delenv("MNIST_SOURCE", raising=False)
    folder = tmp_path / "digits/raw"
    folder.mkdir(parents=True)
    images = struct.pack(">HBBIII", 0, 8, 3, 5, 28, 28) + b"\0\1\2\3\4" * 784
    labels = struct.pack(">HBBI", 0, 8, 1, 5) + bytes([3, 1, 4, 1, 5])
    for name in FILES:
        (folder / name).write_bytes(images if "images" in name else labels)
    return tmp_path


def test_mnist_is_read_whole(mnist: Path) -> None:
    """All 10,000 test images come with their labels and the hash of all four files."""
    dataset = load("mnist", mnist)
    assert dataset.images.shape == (10_000, 28, 28)
    assert dataset.images.dtype == np.uint8
    # The counts of each digit in the test set as published.
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(dataset.labels).tolist() == counts
    raw = mnist / "MNIST/raw"
    content = b"".join((raw / name).read_bytes() for name in FILES)
    assert dataset.sha256 == hashlib.sha256(content).hexdigest()


def test_archives_in_a_folder_of_ones_own(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MNIST_SOURCE names a folder with the four .gz files, and gives the same data set."""
    for name in FILES:
        content = (mnist / "MNIST/raw" / name).read_bytes()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content, 1))
    monkeypatch.setenv("MNIST_SOURCE", str(tmp_path))
    dataset = load("auto", tmp_path / "nothing")
    assert dataset.name == "mnist"
    assert dataset.sha256 == load("mnist", mnist).sha256


def test_auto_falls_back_on_the_digits(digits: Path) -> None:
    """Without MNIST, auto is the embedded digits."""
    dataset = load("auto", digits)
    assert (dataset.name, dataset.labels.tolist()) == ("digits", [3, 1, 4, 1, 5])
    assert dataset.images.ravel()[:7].tolist() == [0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("choice", ["auto", "mnist"])
def test_no_data_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    """Where there is nothing, the sentence names both ways to it."""
    monkeypatch.delenv("MNIST_SOURCE", raising=False)
    with pytest.raises(DatasetError, match="run `make data`, or set MNIST_SOURCE"):
        load(choice, tmp_path)


def test_no_digits_says_how_to_get_them(tmp_path: Path) -> None:
    """The embedded digits are written by make too."""
    with pytest.raises(DatasetError, match="run `make data DATASET=digits`"):
        load("digits", tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", b"\0\0\x08\x03\0\0\0\x05", b"\0\0\x0d\x01\0\0\0\0", b"\1" * 4000],
    ids=["empty", "half a header", "no values", "floats", "anything"],
)
@pytest.mark.parametrize("file", FILES[2:])
def test_a_truncated_file_is_refused(digits: Path, file: str, content: bytes) -> None:
    """A file that is not as long as it says, or says something else, is named as damaged."""
    (digits / "digits/raw" / file).write_bytes(content)
    with pytest.raises(DatasetError, match="truncated or altered: delete them and run `make data`"):
        load("digits", digits)


def test_labels_that_are_no_digits_are_refused(digits: Path) -> None:
    """A label of 10 is a damaged file."""
    path = digits / "digits/raw" / FILES[3]
    path.write_bytes(path.read_bytes()[:-1] + bytes([10]))
    with pytest.raises(DatasetError, match="truncated or altered"):
        load("digits", digits)


def test_a_missing_file_is_named(digits: Path) -> None:
    """One of four is missing: the sentence says which."""
    (digits / "digits/raw" / FILES[0]).unlink()
    with pytest.raises(DatasetError, match=f"{FILES[0]} is missing"):
        load("digits", digits)


def test_altered_mnist_is_refused(mnist: Path, tmp_path: Path) -> None:
    """One changed pixel among 60,000 training images, and it is not MNIST any more."""
    shutil.copytree(mnist / "MNIST/raw", tmp_path / "MNIST/raw")
    path = tmp_path / "MNIST/raw" / FILES[0]
    content = bytearray(path.read_bytes())
    content[1_000_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="truncated or altered"):
        load("mnist", tmp_path)


def test_a_truncated_archive_is_refused(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a .gz file is named."""
    for name in FILES:
        packed = gzip.compress((digits / "digits/raw" / name).read_bytes())
        (tmp_path / f"{name}.gz").write_bytes(packed[: len(packed) // 2])
    monkeypatch.setenv("MNIST_SOURCE", str(tmp_path))
    with pytest.raises(DatasetError, match=r"\.gz is truncated or altered"):
        load("mnist", tmp_path)
