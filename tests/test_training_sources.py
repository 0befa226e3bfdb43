"""Data comes from a folder, the network or scikit-learn, whole or not at all."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from training import idx
from training.cli import main
from training.data import hold_out, load
from training.sources import MNIST_SHA256, prepare

CPU = torch.device("cpu")
Fetch = Callable[..., Result]


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Runs `data` into an empty folder, with a network that refuses every connection."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY", "MNIST_SOURCE"):
        monkeypatch.delenv(name, raising=False)

    def run(dataset: str, **env: str) -> Result:
        command = ["data", "--dataset", dataset, "--data", str(tmp_path / "data")]
        return CliRunner().invoke(main, command, env=env)

    return run


@pytest.fixture
def archives() -> str:
    """The folder that MNIST_SOURCE names; skips where it names none, fails in CI."""
    source = os.environ.get("MNIST_SOURCE")
    if source is None:
        reason = "MNIST_SOURCE is not set"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    return source


def test_mnist_from_a_folder(archives: str, fetch: Fetch, tmp_path: Path) -> None:
    """MNIST_SOURCE's archives become torchvision's layout without a network, and stay usable."""
    result = fetch("mnist", MNIST_SOURCE=archives)
    assert result.exit_code == 0, result.output
    assert "60,000 training and 10,000 test images" in result.output
    raw = tmp_path / "data/MNIST/raw"
    assert {name: idx.sha256(raw / name) for name in idx.NAMES} == MNIST_SHA256
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["MNIST"]
    assert fetch("auto").output == result.output


def test_truncated_archive(archives: str, fetch: Fetch, tmp_path: Path) -> None:
    """A truncated .gz in MNIST_SOURCE is named, and nothing is left in the data folder."""
    source = tmp_path / "source"
    shutil.copytree(archives, source, copy_function=shutil.copyfile)
    images = source / "t10k-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-1])
    result = fetch("auto", MNIST_SOURCE=str(source))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {images} is truncated or altered")
    assert not list((tmp_path / "data").iterdir())


def test_source_without_archives(fetch: Fetch, tmp_path: Path) -> None:
    """A MNIST_SOURCE that lacks the archives is an error, not a reason to go elsewhere."""
    result = fetch("auto", MNIST_SOURCE=str(tmp_path))
    assert result.exit_code == 1
    assert "train-images-idx3-ubyte.gz cannot be read (No such file or directory)" in result.stderr
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize("damage", ["altered", "truncated"])
def test_damaged_raw_file(mnist: Path, fetch: Fetch, tmp_path: Path, damage: str) -> None:
    """A file of MNIST that was altered or cut since it came is named, with what to do."""
    raw = tmp_path / "data/MNIST/raw"
    shutil.copytree(mnist / "MNIST/raw", raw)
    labels = raw / idx.TEST_LABELS
    content = labels.read_bytes()
    labels.write_bytes(content[:-1] + (b"" if damage == "truncated" else bytes([content[-1] ^ 1])))
    result = fetch("mnist")
    assert result.exit_code == 1
    assert f"{labels} is truncated or altered: delete {raw}" in result.stderr


def test_no_network(fetch: Fetch, tmp_path: Path) -> None:
    """Without a network, asking for MNIST ends in one sentence that names the ways out."""
    result = fetch("mnist")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    for way in ("HTTPS_PROXY", "SSL_CERT_FILE", "MNIST_SOURCE=", "DATASET=digits"):
        assert way in result.stderr
    assert not list((tmp_path / "data").iterdir())


def test_auto_falls_back_loudly(fetch: Fetch) -> None:
    """Without MNIST, auto goes on with the embedded digits, and warns."""
    result = fetch("auto")
    assert result.exit_code == 0
    assert "WITHOUT MNIST" in result.stderr
    assert "1,437 training and 360 test images" in result.stdout


def test_data_folder_that_is_a_file(fetch: Fetch, tmp_path: Path) -> None:
    """A data folder that cannot be written ends in one sentence."""
    (tmp_path / "data").touch()
    for dataset in ("digits", "mnist"):
        result = fetch(dataset)
        assert result.exit_code == 1
        assert "cannot be written" in result.stderr


def test_digits_look_like_mnist(tmp_path: Path) -> None:
    """The embedded digits are 28×28 bytes, ink on an empty margin of four pixels."""
    prepare("digits", tmp_path)
    images = load("digits", tmp_path, CPU).train.images
    assert images.shape == (1437, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert images.max() == 255
    assert images.sum() == images[:, :, 4:24, 4:24].sum()


def test_digits_are_split_in_proportion(tmp_path: Path) -> None:
    """Every digit has the same share of the embedded test images, give or take one."""
    prepare("digits", tmp_path)
    digits = load("digits", tmp_path, CPU)
    test, train = (split.labels.bincount() for split in (digits.test, digits.train))
    assert ((test + train) * 360 / 1797 - test).abs().max() < 1


def test_hash_is_of_the_files_in_order(tmp_path: Path) -> None:
    """The data set's hash is SHA-256 of its files, one after another, and always the same."""
    prepare("digits", tmp_path / "once")
    prepare("digits", tmp_path / "twice")
    once, twice = (load("digits", tmp_path / name, CPU).sha256 for name in ("once", "twice"))
    content = b"".join(
        (tmp_path / "once/digits/raw" / name).read_bytes()
        for name in (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        )
    )
    assert once == twice == hashlib.sha256(content).hexdigest()


def test_idx_round_trip(tmp_path: Path) -> None:
    """What is written as IDX is read back, in its shape."""
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "file").write_bytes(idx.to_idx(values))
    np.testing.assert_array_equal(idx.read_idx(tmp_path / "file"), values)


def test_held_out_images_are_not_trained_on(tmp_path: Path) -> None:
    """The split parts the images: none is lost, none is in both, whatever the run's seed."""
    prepare("digits", tmp_path)
    train = load("digits", tmp_path, CPU).train
    rest, held_out = hold_out(train, 0.25)
    assert len(held_out) == 359

    def keys(images: torch.Tensor) -> list[bytes]:
        return [image.numpy().tobytes() for image in images]

    assert sorted(keys(rest.images) + keys(held_out.images)) == sorted(keys(train.images))
    torch.manual_seed(7)
    assert torch.equal(hold_out(train, 0.25)[1].images, held_out.images)
