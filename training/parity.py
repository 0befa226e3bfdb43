"""Proof that onnxruntime answers as PyTorch does."""

from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import nn

from training.data import Split
from training.errors import TrainingError

BATCH_SIZES = (1, 3, 64, 1000)
LIMIT = 1e-4  # of the difference between any two logits; float32 sums differ in their order


@dataclass(frozen=True)
class Parity:
    """What comparing onnxruntime with PyTorch found.

    Attributes:
        images: how many images were compared, at each batch size.
        max_abs_logit_diff: the largest difference between two logits.
        disagreements: how often their most probable digits differed.
        accuracy: fraction of onnxruntime's most probable digits that are right.
    """

    images: int
    max_abs_logit_diff: float
    disagreements: int
    accuracy: float

    def require(self) -> None:
        """Raises a TrainingError if a logit differs by more than `LIMIT`, or any digit."""
        # Said this way round, a difference that is no number is refused too.
        if not (self.max_abs_logit_diff <= LIMIT and self.disagreements == 0):
            raise TrainingError(
                f"Parity failed on {self.images} images: a logit of onnxruntime differs from "
                f"PyTorch's by {self.max_abs_logit_diff:.1e} (limit {LIMIT:.0e}) and "
                f"{self.disagreements} digits differ. Nothing was exported; train again."
            )


def compare(model: nn.Module, onnx_file: bytes, images: Split, progress: Progress) -> Parity:
    """Asks PyTorch and onnxruntime about all images, in the same batches of each of `BATCH_SIZES`.

    Args:
        model: from pixels to logits, on the CPU, in evaluation mode.
        onnx_file: the content of its ONNX file.
        images: on the CPU.
        progress: shows how far it is.
    """
    session = open_session(onnx_file)
    task = progress.add_task("parity", total=len(images) * len(BATCH_SIZES))
    largest, disagreements, right = 0.0, 0, 0
    with torch.inference_mode():
        for size in BATCH_SIZES:
            for pixels, labels in images.batches(size):
                expected = model(pixels).numpy()
                answered = logits(session, pixels.numpy())
                # Unlike max(), which may drop it, this keeps a difference that is no number.
                largest = float(np.maximum(largest, np.abs(answered - expected).max()))
                digits = answered.argmax(1)
                disagreements += int((digits != expected.argmax(1)).sum())
                right += int((digits == labels.numpy()).sum())
                progress.advance(task, len(pixels))
    accuracy = right / (len(images) * len(BATCH_SIZES))
    return Parity(len(images), largest, disagreements, accuracy)


def open_session(onnx_file: bytes) -> onnxruntime.InferenceSession:
    """Opens an ONNX file's content as it is served: on the CPU, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx_file, options, providers=["CPUExecutionProvider"])


def logits(
    session: onnxruntime.InferenceSession, pixels: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Returns the session's logits [n, 10] for pixels [n, 1, 28, 28]."""
    answered: NDArray[np.float32] = session.run(["logits"], {"pixels": pixels})[0]
    return answered
