"""How an exported model does on distorted test images, and whether its confidence is honest."""

from collections.abc import Iterable
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from training.calibration import expected_calibration_error, reliability
from training.data import Split
from training.experiments.distortions import DISTORTIONS, distort

BATCH = 1000
SEED = 0  # of every distortion at every strength: all models are asked the same


def measure(
    session: onnxruntime.InferenceSession, images: Split, progress: Progress
) -> dict[str, Any]:
    """Asks a model about images as they are, and distorted in every way at every strength.

    Args:
        session: the model's, as it is served.
        images: the test images, on the CPU.
        progress: shows how far it is.

    Returns:
        a JSON object, where accuracies are fractions of the images:
        - "images": how many there are.
        - "clean_accuracy": on the images as they are.
        - "distortions": by name an object of "unit", "none" (the strength that
          leaves images as they are), "strengths", "accuracy" (a list, in their
          order) and "mean_accuracy" (over its strengths).
        - "mean_accuracy": the mean of the distortions' own.
        - "calibration": on the images as they are, an object of
          "expected_calibration_error" and "bins", a list of objects of
          "confidence" (their mean), "accuracy" and "count"; empty bins are left out.
    """
    strengths = sum(len(way.strengths) for way in DISTORTIONS.values())
    task = progress.add_task("robustness", total=strengths + 1)
    confidence, right = _ask(session, images.batches(BATCH))
    progress.advance(task)
    distortions: dict[str, dict[str, Any]] = {}
    for name, way in DISTORTIONS.items():
        accuracy = []
        for strength in way.strengths:
            random = torch.Generator().manual_seed(SEED)
            batches = (
                (distort(pixels, name, strength, random), labels)
                for pixels, labels in images.batches(BATCH)
            )
            accuracy.append(float(_ask(session, batches)[1].mean()))
            progress.advance(task)
        distortions[name] = {
            "unit": way.unit,
            "none": way.none,
            "strengths": list(way.strengths),
            "accuracy": accuracy,
            "mean_accuracy": fmean(accuracy),
        }
    return {
        "images": len(images),
        "clean_accuracy": float(right.mean()),
        "distortions": distortions,
        "mean_accuracy": fmean(way["mean_accuracy"] for way in distortions.values()),
        "calibration": {
            "expected_calibration_error": expected_calibration_error(confidence, right),
            "bins": [asdict(part) for part in reliability(confidence, right)],
        },
    }


def table(name: str, found: dict[str, Any]) -> Table:
    """Returns what `measure` found, as a table for the screen: accuracies below their strengths."""
    error = found["calibration"]["expected_calibration_error"]
    grid = Table(
        title=f"{name}: {found['clean_accuracy']:.2%} undistorted, {found['mean_accuracy']:.1%} "
        f"over all distortions\nexpected calibration error {error:.2%}",
        box=SIMPLE,
        show_header=False,
    )
    for way, row in found["distortions"].items():
        strengths = (f"[dim]{strength:g}[/]" for strength in row["strengths"])
        accuracies = (f"{accuracy:.1%}" for accuracy in row["accuracy"])
        grid.add_row(way, *strengths, "[dim]mean[/]")
        grid.add_row(f"[dim]{row['unit']}[/]", *accuracies, f"{row['mean_accuracy']:.1%}")
    return grid


def _ask(
    session: onnxruntime.InferenceSession, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Returns each answer's confidence, [n], and whether it is right, [n]."""
    confidence, right = [], []
    for pixels, labels in batches:
        [probabilities] = session.run(["probabilities"], {"pixels": pixels.numpy()})
        confidence.append(probabilities.max(1))
        right.append(probabilities.argmax(1) == labels.numpy())
    return np.concatenate(confidence), np.concatenate(right)
