"""The summary shows where every shape comes from, and is right about it."""

import re
from typing import Literal

import pytest
from click.testing import CliRunner
from torch import nn

from training.cli import main
from training.models import ARCHITECTURES, parameter_count
from training.summary import arithmetic, layers, output_size


@pytest.mark.parametrize(
    ("size", "kernel_size", "padding", "stride", "expected"),
    [
        (32, 5, 0, 1, 28),
        (32, 5, "same", 1, 32),
        (64, 3, 0, 2, 31),
        (16, 2, 0, 2, 8),
        (7, 3, 1, 2, 4),
        (6, 3, 0, 2, 2),
    ],
)
def test_output_size(
    size: int, kernel_size: int, padding: int | Literal["same"], stride: int, expected: int
) -> None:
    """floor((n + 2p - k) / s) + 1, worked out by hand."""
    assert output_size(size, kernel_size, padding=padding, stride=stride) == expected


def test_two_same_convolutions_keep_the_size() -> None:
    """Two 3×3 convolutions with "same" padding leave 128×128 as it was."""
    once = output_size(128, 3, padding="same")
    assert output_size(once, 3, padding="same") == 128


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_arithmetic_agrees_with_pytorch(arch: str) -> None:
    """Each line's result is the shape that PyTorch itself found for that layer."""
    statistics = layers(arch)
    found = [
        tuple(layer.output_size[1:])
        for layer in statistics.summary_list
        if isinstance(layer.module, nn.Conv2d | nn.MaxPool2d)
    ]
    worked_out = [
        tuple(map(int, re.findall(r"\d+", line.split("→")[1]))) for line in arithmetic(statistics)
    ]
    assert worked_out == found


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_summary_command(arch: str) -> None:
    """`summary` prints layers, the parameter count, and the arithmetic."""
    result = CliRunner().invoke(main, ["summary", "--arch", arch])
    assert result.exit_code == 0
    assert f"Total params: {parameter_count(ARCHITECTURES[arch]()):,}" in result.output
    assert "floor((28 + 2·" in result.output
