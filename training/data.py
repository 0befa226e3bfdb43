"""A data set as tensors on the training device."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from training import idx
from training.models import CLASSES, IMAGE_SHAPE
from training.sources import folder_of


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 [n, 1, 28, 28], from 0 (background) to 255 (ink).
        labels: int64 [n], the digits.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Returns how many images there are."""
        return len(self.labels)

    def take(self, indices: Tensor) -> "Split":
        """Returns the images and labels at `indices`, int64 [k]."""
        return Split(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> "Split":
        """Returns the same images and labels on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    def batches(self, size: int, *, shuffle: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Returns pixels, float [at most size, 1, 28, 28] in [0, 1], with their labels.

        Args:
            size: how many at once; the last batch holds what is left.
            shuffle: in an order drawn here and now from torch's global generator.
        """
        count, device = len(self), self.labels.device
        order = torch.randperm(count, device=device) if shuffle else None
        parts = (slice(start, start + size) for start in range(0, count, size))
        chosen = (part if order is None else order[part] for part in parts)
        return ((self.images[these].float().div_(255), self.labels[these]) for these in chosen)


@dataclass(frozen=True)
class Dataset:
    """A data set with its test images apart.

    Attributes:
        name: "mnist" or "digits".
        sha256: the hash of its files, see `idx.dataset_sha256`.
        train: the training images.
        test: the test images.
    """

    name: str
    sha256: str
    train: Split
    test: Split

    def to(self, device: torch.device) -> "Dataset":
        """Returns the same data set on `device`."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def load(name: str, root: Path, device: torch.device) -> Dataset:
    """Reads a data set that `sources.prepare` has brought to `root`.

    Raises:
        TrainingError: if a file is missing or damaged.
    """
    folder = folder_of(name, root)
    train = _read(folder / idx.TRAIN_IMAGES, folder / idx.TRAIN_LABELS, device)
    test = _read(folder / idx.TEST_IMAGES, folder / idx.TEST_LABELS, device)
    return Dataset(name, idx.dataset_sha256(folder), train, test)


def hold_out(split: Split, fraction: float) -> tuple[Split, Split]:
    """Parts a split at random, and yet always in the same way.

    All runs hold out the same images, whatever their seed: a teacher has then
    seen none of those that its students are chosen and calibrated on, unless it
    held out fewer.

    Returns:
        what is left, and the `fraction` of it that is held out; at least one image of each.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(split), generator=generator).to(split.labels.device)
    held = min(max(1, round(fraction * len(split))), len(split) - 1)
    return split.take(order[held:]), split.take(order[:held])


def _read(images: Path, labels: Path, device: torch.device) -> Split:
    pixels, digits = idx.read_idx(images), idx.read_idx(labels)
    if pixels.shape[1:] != IMAGE_SHAPE[1:] or digits.shape != pixels.shape[:1]:
        raise idx.damaged(images)
    if digits.max(initial=0) >= CLASSES:
        raise idx.damaged(labels)
    return Split(
        torch.tensor(pixels[:, None], device=device),
        torch.tensor(digits, dtype=torch.int64, device=device),
    )
