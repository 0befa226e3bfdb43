"""Where the data comes from: a folder, the network, or scikit-learn."""

import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import click

from training import idx
from training._torchvision import MNIST
from training.errors import TrainingError
from training.files import atomic, writable

# Of the files that torchvision's MD5-checked archives decompress to.
MNIST_SHA256 = {
    idx.TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    idx.TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    idx.TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    idx.TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
# A network that swallows connections must not hold anyone up for long.
CONNECT_SECONDS = 10


class NoNetworkError(TrainingError):
    """MNIST is nowhere here and could not be downloaded."""


def folder_of(dataset: str, root: Path) -> Path:
    """Returns the folder of a data set's four IDX files: torchvision's layout below `root`."""
    return root / {"mnist": "MNIST", "digits": "digits"}[dataset] / "raw"


def prepare(choice: str, root: Path) -> str:
    """Brings the chosen data set to `root`, unless it is there, and returns its name.

    Args:
        choice: "mnist", "digits", or "auto": MNIST, or with a loud warning the
            embedded digits where MNIST is not here and cannot be downloaded.
        root: the data folder.

    Raises:
        TrainingError: if MNIST's files are damaged, here or in the folder that
            the environment's MNIST_SOURCE names, if it cannot be downloaded
            though it was asked for, or if `root` cannot be written.
    """
    if choice != "digits":
        try:
            _prepare_mnist(root)
        except NoNetworkError as error:
            if choice == "mnist":
                raise
            click.secho(
                f"WARNING: {error.message}\n"
                "WARNING: going on WITHOUT MNIST, on scikit-learn's 1,797 embedded digits. "
                "A model trained on them is a demonstration: it knows nothing of MNIST.",
                fg="yellow",
                bold=True,
                err=True,
            )
        else:
            return "mnist"
    _prepare_digits(root)
    return "digits"


def _prepare_mnist(root: Path) -> None:
    folder = folder_of("mnist", root)
    if all((folder / name).is_file() for name in idx.NAMES):
        for name, expected in MNIST_SHA256.items():
            if idx.sha256(folder / name) != expected:
                raise idx.damaged(folder / name)
        return
    with writable(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".mnist-") as temporary:
            staging = Path(temporary)
            if source := os.environ.get("MNIST_SOURCE"):
                _copy_archives(Path(source), folder_of("mnist", staging))
            _download(staging)
            folder.mkdir(parents=True, exist_ok=True)
            for name in idx.NAMES:
                (folder_of("mnist", staging) / name).replace(folder / name)


def _copy_archives(source: Path, folder: Path) -> None:
    """Copies MNIST's four archives, once each is known to be whole."""
    folder.mkdir(parents=True)
    for name, md5 in MNIST.resources:
        try:
            content = (source / name).read_bytes()
        except OSError as error:
            raise TrainingError(
                f"{source / name} cannot be read ({error.strerror}): MNIST_SOURCE must name a "
                "folder with MNIST's four .gz files, or be unset to download them."
            ) from error
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise TrainingError(
                f"{source / name} is truncated or altered (its MD5 is not {md5}): "
                "fetch that file again."
            )
        (folder / name).write_bytes(content)


def _download(staging: Path) -> None:
    """Has torchvision download what is missing below `staging`, and decompress it."""
    try:
        with _connect_timeout():
            MNIST(staging, download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise NoNetworkError(
            f"MNIST could not be downloaded ({reason}): check the network, the proxy "
            "(HTTPS_PROXY) and the certificates (SSL_CERT_FILE), or name a folder that holds its "
            "four .gz files with MNIST_SOURCE=DIR, or take the embedded digits with DATASET=digits."
        ) from error


@contextmanager
def _connect_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _prepare_digits(root: Path) -> None:
    """Writes the embedded digits anew: that is as quick as to check them."""
    from training.digits import idx_files  # noqa: PLC0415 - scikit-learn is slow to import

    folder = folder_of("digits", root)
    for name, content in idx_files().items():
        with atomic(folder / name) as temporary:
            temporary.write_bytes(content)
