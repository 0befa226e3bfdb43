"""Makes confidence mean what it says: of answers given with 0.9, nine in ten should be right.

A temperature is fitted after Guo et al., "On Calibration of Modern Neural
Networks" (2017), and baked into the last layer's weights, so that it costs
nothing to serve and logits and probabilities agree.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from training.data import Split

BINS = 15  # as Guo et al. have it
BATCH = 1000
# Further than any trained network is off; the search halves the way between them each time.
COLDEST, HOTTEST, HALVINGS = 0.05, 20.0, 50


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence falls into one part of [0, 1].

    Attributes:
        confidence: their mean confidence.
        accuracy: the fraction of them that is right.
        count: how many they are, at least one.
    """

    confidence: float
    accuracy: float
    count: int


def calibrate(model: nn.Module, images: Split) -> float:
    """Divides the model's logits by the temperature that suits the images best, and returns it.

    The division is done on the weights and biases of the last layer that has
    any, in which the logits of every architecture are linear.

    Args:
        model: from pixels to logits; set to evaluation mode.
        images: held out from training, on the model's device.
    """
    model.eval()
    with torch.inference_mode():
        logits = torch.cat([model(pixels) for pixels, _ in images.batches(BATCH)])
    temperature = fit_temperature(logits, images.labels)
    last = [layer for layer in model.modules() if [*layer.parameters(recurse=False)]][-1]
    with torch.no_grad():
        for parameter in last.parameters(recurse=False):
            parameter.div_(temperature)
    return temperature


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Returns the T for which softmax(logits / T) has the least cross-entropy.

    It is 1 where every answer is right: the least would then be at T = 0, which
    is certainty, and no number of images proves that.

    Args:
        logits: [n, 10].
        labels: int64 [n].
    """
    if bool((logits.argmax(1) == labels).all()):
        return 1.0
    logits = logits.double()
    of_label = logits.gather(1, labels[:, None]).mean()
    low, high = COLDEST, HOTTEST
    for _ in range(HALVINGS):
        temperature = (low * high) ** 0.5
        expected = ((logits / temperature).softmax(1) * logits).sum(1).mean()
        # Their difference is the cross-entropy's slope over 1 / T, in which it is convex.
        low, high = (temperature, high) if expected > of_label else (low, temperature)
    return float((low * high) ** 0.5)


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> list[Bin]:
    """Returns the bins of equal width, (0, 1/bins] and so on, that hold any answer at all.

    Args:
        confidence: [n], the probability of the digit that was answered.
        right: [n], whether it was right.
        bins: into how many parts [0, 1] is cut.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    index = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    members = [index == number for number in np.unique(index)]
    return [Bin(float(confidence[m].mean()), float(right[m].mean()), int(m.sum())) for m in members]


def expected_calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """Returns how far confidence is from accuracy, bin by bin, as a mean over all answers.

    From Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated
    Probabilities Using Bayesian Binning" (2015). The arguments are those of
    `reliability`.
    """
    filled = reliability(confidence, right, bins)
    gaps = sum(b.count * abs(b.accuracy - b.confidence) for b in filled)
    return gaps / sum(b.count for b in filled)
