"""How quickly exported models answer, on one thread, side by side: machines drift."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from training.golden import golden_pixels
from training.parity import open_session

ROUNDS = 10
CALLS = 500  # of one image each, in a round
BATCH, BATCHES = 64, 20  # images in a batch, batches in a round


@dataclass(frozen=True)
class Spread:
    """A figure over all rounds: the median, the least and the most."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Speed:
    """How quickly a model answers.

    Attributes:
        p50_us: the median time that one image takes, in microseconds.
        images_per_second: in batches of `BATCH`.
    """

    p50_us: Spread
    images_per_second: Spread


def measure(onnx_files: Mapping[str, bytes]) -> dict[str, Speed]:
    """Returns the speed of each model, by its name; all take turns in each of `ROUNDS` rounds.

    Args:
        onnx_files: the content of each model's ONNX file.
    """
    sessions = {name: open_session(content) for name, content in onnx_files.items()}
    pixels = golden_pixels()[:BATCH]
    rounds = [
        {name: (_seconds(s, pixels[:1], CALLS), _seconds(s, pixels, BATCHES)) for name, s in turns}
        for turns in [sessions.items()] * ROUNDS
    ]
    return {
        name: Speed(
            p50_us=_spread([1e6 * one[name][0] for one in rounds]),
            images_per_second=_spread([BATCH / one[name][1] for one in rounds]),
        )
        for name in sessions
    }


def _seconds(
    session: onnxruntime.InferenceSession, pixels: NDArray[np.float32], calls: int
) -> float:
    """Returns a call's median time, in seconds, once a few have warmed the caches."""
    times = []
    for _ in range(calls + calls // 10):
        started = time.perf_counter()
        session.run(["logits", "probabilities"], {"pixels": pixels})
        times.append(time.perf_counter() - started)
    return statistics.median(times[-calls:])


def _spread(values: list[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))
