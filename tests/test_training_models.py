"""The zoo is what it says it is."""

import pytest
import torch
from torch import nn

from training.models import ARCHITECTURES, Normalize, example_pixels, parameter_count


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("tiny", 52_138),
        ("dropout", 21_840),
        ("light", 10_758),
        ("gap", 9_032),
        ("digitnet-s", 9_834),
        ("digitnet", 19_610),
        ("digitnet-l", 141_930),
        ("digitnet-xl", 581_506),
    ],
)
def test_parameter_count(arch: str, expected: int) -> None:
    """Each architecture has as many parameters as its specification adds up to."""
    assert parameter_count(ARCHITECTURES[arch]()) == expected


@pytest.mark.parametrize(("arch", "budget"), [("digitnet-s", 10_000), ("digitnet", 20_000)])
def test_digitnet_is_small(arch: str, budget: int) -> None:
    """The project's own networks stay within their budgets of parameters."""
    assert parameter_count(ARCHITECTURES[arch]()) < budget


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("batch", [1, 5])
def test_ten_logits_per_image(arch: str, batch: int) -> None:
    """Every architecture turns [n, 1, 28, 28] into [n, 10]."""
    assert ARCHITECTURES[arch]().eval()(example_pixels(batch)).shape == (batch, 10)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_logits_and_not_probabilities(arch: str) -> None:
    """No architecture ends in a softmax: that is for the loss, and for the served graph."""
    last = list(ARCHITECTURES[arch]().modules())[-1]
    assert not isinstance(last, nn.Softmax | nn.LogSoftmax)


@pytest.mark.parametrize("side", [28, 32, 56])
def test_gap_takes_other_sizes(side: int) -> None:
    """The fully convolutional network answers for images of other sizes."""
    assert ARCHITECTURES["gap"]().eval()(torch.rand(3, 1, side, side)).shape == (3, 10)


def test_normalize() -> None:
    """MNIST's mean becomes 0, and one standard deviation above it becomes 1."""
    normalised = Normalize(mean=0.1307, std=0.3081)(torch.tensor([0.1307, 0.1307 + 0.3081]))
    torch.testing.assert_close(normalised, torch.tensor([0.0, 1.0]))


def test_only_light_normalises() -> None:
    """`light` normalises its pixels itself; the others take them as they are."""
    firsts = {arch: next(iter(build().children())) for arch, build in ARCHITECTURES.items()}
    assert [arch for arch, first in firsts.items() if isinstance(first, Normalize)] == ["light"]
