"""scikit-learn's 1,797 real 8×8 digits, made to look like MNIST."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import interpolate, pad

from training import idx

TEST_IMAGES = 360
DARKEST = 16  # the 8×8 images count ink from 0 to 16
# As in MNIST: the digit fills 20×20 pixels in the middle of 28×28.
INNER, MARGIN = 20, 4


def idx_files() -> dict[str, bytes]:
    """Returns the four IDX files by name, always the same, split with each digit in proportion."""
    digits = load_digits()
    train_images, test_images, train_labels, test_labels = train_test_split(
        _enlarge(digits.images),
        digits.target.astype(np.uint8),
        test_size=TEST_IMAGES,
        stratify=digits.target,
        random_state=0,
    )
    return {
        idx.TRAIN_IMAGES: idx.to_idx(train_images),
        idx.TRAIN_LABELS: idx.to_idx(train_labels),
        idx.TEST_IMAGES: idx.to_idx(test_images),
        idx.TEST_LABELS: idx.to_idx(test_labels),
    }


def _enlarge(images: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Turns [n, 8, 8] values from 0 to 16 into [n, 28, 28] bytes."""
    ink = torch.from_numpy(images)[:, None] / DARKEST * 255
    ink = pad(interpolate(ink, (INNER, INNER), mode="bilinear"), (MARGIN,) * 4)
    return ink.round().to(torch.uint8).squeeze(1).numpy()
