"""An exported version, looked at as it is served: what it gets right, what it finds hard."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from training.data import Dataset
from training.errors import TrainingError
from training.export import MODEL_FILE, identify
from training.models import CLASSES
from training.parity import logits, open_session

BATCH = 64
HARDEST = 30  # so many that one can look at each


def examine(folder: Path, dataset: Dataset) -> dict[str, Any]:
    """Asks a version about all test images through onnxruntime, and returns what was found.

    Images are named by their index among the test images. "hardest" are those
    with the highest cross-entropy, which is -ln of the probability that was
    given to the true digit, in nats.

    Args:
        folder: the version's, `…/<name>/<version>`.
        dataset: the one that it was trained on, on the CPU.

    Raises:
        TrainingError: if `folder` holds no model of ours, or one trained on other data.
    """
    identity = identify(folder)
    if identity["metadata"]["dataset_sha256"] != dataset.sha256:
        raise TrainingError(f"{folder} was trained on other data than this {dataset.name}.")
    content = (folder / MODEL_FILE).read_bytes()
    labels = dataset.test.labels.numpy()
    log_probabilities = _log_probabilities(open_session(content), dataset)
    answers = log_probabilities.argmax(1)
    cross_entropy = -log_probabilities[np.arange(len(labels)), labels]
    confusion = np.zeros((CLASSES, CLASSES), int)
    np.add.at(confusion, (labels, answers), 1)

    def image(index: int) -> dict[str, Any]:
        return {
            "index": index,
            "label": int(labels[index]),
            "answer": int(answers[index]),
            "confidence": math.exp(log_probabilities[index].max()),
            "cross_entropy": float(cross_entropy[index]),
        }

    return {
        **identity,
        "images": len(labels),
        "correct": int((answers == labels).sum()),
        "cross_entropy": float(cross_entropy.mean()),
        "confusion": confusion.tolist(),  # [true digit][answer]
        "mistakes": [image(index) for index in np.flatnonzero(answers != labels).tolist()],
        "hardest": [image(i) for i in np.argsort(-cross_entropy, kind="stable")[:HARDEST].tolist()],
    }


def _log_probabilities(
    session: onnxruntime.InferenceSession, dataset: Dataset
) -> NDArray[np.float64]:
    """Returns the logarithms of what the session takes each digit's probability to be, [n, 10]."""
    batches = dataset.test.batches(BATCH)
    answered = np.concatenate([logits(session, pixels.numpy()) for pixels, _ in batches])
    shifted = answered.astype(np.float64) - answered.max(1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return normalised
