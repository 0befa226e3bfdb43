"""A model layer by layer, and the arithmetic behind its shapes."""

from typing import Any, Literal

import torchinfo
from torch import nn

from training.models import ARCHITECTURES, IMAGE_SHAPE


def output_size(
    size: int, kernel_size: int, *, padding: int | Literal["same"] = 0, stride: int = 1
) -> int:
    """Returns the side that a convolution or a pooling leaves: floor((n + 2p - k) / s) + 1.

    From Dumoulin and Visin, "A guide to convolution arithmetic for deep
    learning" (2016), relationship 6.

    Args:
        size: the side n of its input, in pixels.
        kernel_size: the side k of its kernel.
        padding: p, the pixels added on each side; "same" is (k - 1) / 2, for odd k.
        stride: s, the step of the kernel.
    """
    added = (kernel_size - 1) // 2 if padding == "same" else padding
    return (size + 2 * added - kernel_size) // stride + 1


def layers(arch: str) -> torchinfo.ModelStatistics:
    """Returns torchinfo's table: each layer's output shape, parameters and multiply-adds."""
    return torchinfo.summary(
        ARCHITECTURES[arch](),
        input_size=(1, *IMAGE_SHAPE),
        col_names=("output_size", "num_params", "mult_adds"),
        verbose=0,
    )


def arithmetic(statistics: torchinfo.ModelStatistics) -> list[str]:
    """Returns a line for each convolution and pooling: how its output's side comes about."""
    lines = []
    for layer in statistics.summary_list:
        module = layer.module
        if not isinstance(module, nn.Conv2d | nn.MaxPool2d):
            continue
        k, p, s = _side(module.kernel_size), _side(module.padding), _side(module.stride)
        n = layer.input_size[-1]
        m = output_size(n, k, padding=p, stride=s)
        lines.append(
            f"{layer.class_name}: floor(({n} + 2·{p} - {k}) / {s}) + 1 = {m}"
            f"  →  {layer.output_size[1]} × {m} × {m}"
        )
    return lines


def _side(setting: Any) -> int:
    """Returns a layer's setting for one side, where it may name both; ours are square."""
    return int(setting[0] if isinstance(setting, tuple) else setting)
