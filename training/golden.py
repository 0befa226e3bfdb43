"""Golden inputs: images of no data set, with the answers that PyTorch gives to them.

Whoever loads the model later, on whatever machine, can ask it the same and see
that it answers the same.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.errors import TrainingError
from training.models import IMAGE_SHAPE
from training.parity import logits, open_session

TOLERANCE = 1e-4  # of a logit; float32 sums differ in their order from machine to machine
BATCH_SIZES = (1, 3, 64)
SEED = 784
DRAWN, NOISE = 48, 16
_, HEIGHT, WIDTH = IMAGE_SHAPE


def golden_pixels() -> NDArray[np.float32]:
    """Returns the golden inputs, float32 [64, 1, 28, 28] in [0, 1]: strokes, then noise."""
    random = np.random.default_rng(SEED)
    drawn = [_drawing(random) for _ in range(DRAWN)]
    noise = random.random((NOISE, HEIGHT, WIDTH))
    return np.stack([*drawn, *noise])[:, None].astype(np.float32)


def golden_logits(model: nn.Module) -> NDArray[np.float32]:
    """Returns the model's answers to the golden inputs, float32 [64, 10].

    Args:
        model: from pixels to logits, on the CPU, in evaluation mode.
    """
    with torch.inference_mode():
        answered: NDArray[np.float32] = model(torch.from_numpy(golden_pixels())).numpy()
    return answered


def write(model: nn.Module, path: Path) -> None:
    """Writes `pixels` [64, 1, 28, 28] and the model's `logits` [64, 10], as an .npz file.

    Args:
        model: from pixels to logits, on the CPU, in evaluation mode.
        path: the file to write.
    """
    np.savez_compressed(path, pixels=golden_pixels(), logits=golden_logits(model))


def difference(
    onnx_file: bytes, pixels: NDArray[np.float32], expected: NDArray[np.float32]
) -> float:
    """Returns the largest difference between onnxruntime's logits and those expected.

    Args:
        onnx_file: the content of an ONNX file.
        pixels: [n, 1, 28, 28], which it is asked in several batch sizes.
        expected: [n, 10].
    """
    session = open_session(onnx_file)
    largest = 0.0
    for size in BATCH_SIZES:
        parts = np.split(pixels, range(size, len(pixels), size))
        answered = np.concatenate([logits(session, part) for part in parts])
        # Unlike max(), which may drop it, this keeps a difference that is no number.
        largest = float(np.maximum(largest, np.abs(answered - expected).max()))
    return largest


def check(golden_file: Path, onnx_file: Path, tolerance: float = TOLERANCE) -> None:
    """Asks onnxruntime the golden inputs, from the files as they are.

    Raises:
        TrainingError: if a logit differs from the golden one by more than `tolerance`.
    """
    with np.load(golden_file) as golden:
        found = difference(onnx_file.read_bytes(), golden["pixels"], golden["logits"])
    if not found <= tolerance:
        raise TrainingError(
            f"On golden inputs a logit of onnxruntime differs from PyTorch's by {found:.1e} "
            f"(tolerance {tolerance:.1e}). Nothing was exported; train again."
        )


def _drawing(random: np.random.Generator) -> NDArray[np.float64]:
    """Draws one to three strokes, [28, 28] in [0, 1]."""
    strokes = [_stroke(random) for _ in range(random.integers(1, 4))]
    image: NDArray[np.float64] = np.max(strokes, axis=0)
    return image


def _stroke(random: np.random.Generator) -> NDArray[np.float64]:
    """Draws a quadratic Bézier curve with soft edges, [28, 28] in [0, 1]."""
    start, bend, end = random.uniform(4, 24, (3, 2))
    t = np.linspace(0, 1, 64)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end  # [64, 2]
    rows_and_columns = np.moveaxis(np.indices((HEIGHT, WIDTH)), 0, -1)  # [28, 28, 2]
    offsets = rows_and_columns[:, :, None] - curve  # [28, 28, 64, 2]
    distance = np.linalg.norm(offsets, axis=-1).min(axis=-1)  # [28, 28]
    half_width = random.uniform(0.8, 1.8)
    image: NDArray[np.float64] = np.clip(half_width + 0.5 - distance, 0, 1)
    return image
