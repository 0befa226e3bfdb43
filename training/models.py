"""The zoo: every architecture, from pixels in [0, 1] to ten logits.

Shapes are [batch, channels, height, width], given where they change. What a
network needs done to its pixels is its own first layer, so that training and
serving cannot disagree about it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 10
IMAGE_SHAPE = (1, 28, 28)


class Normalize(nn.Module):
    """Shifts and scales pixels to zero mean and unit variance.

    Args:
        mean: the mean of the training set's pixels.
        std: their standard deviation.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the normalised pixels, in their shape."""
        return (pixels - self.mean) / self.std


def tiny() -> nn.Sequential:
    """Two convolutions and two linear layers: 52,138 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),  # [b, 8, 14, 14]
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),  # [b, 16, 7, 7]
        nn.Flatten(),
        nn.Linear(784, 64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
    )


def dropout() -> nn.Sequential:
    """Two 5×5 convolutions and two linear layers under dropout: 21,840 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 5),  # [b, 10, 24, 24]
        nn.MaxPool2d(2),  # [b, 10, 12, 12]
        nn.ReLU(),
        nn.Conv2d(10, 20, 5),  # [b, 20, 8, 8]
        nn.Dropout2d(),
        nn.MaxPool2d(2),  # [b, 20, 4, 4]
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(320, 50),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(50, CLASSES),
    )


def light() -> nn.Sequential:
    """Four blocks that halve the image down to one pixel: 10,758 parameters."""

    def block(channels_in: int, channels_out: int, drop: float) -> list[nn.Module]:
        return [
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout2d(drop),
        ]

    return nn.Sequential(
        Normalize(mean=0.1307, std=0.3081),  # of MNIST's training images
        *block(1, 6, drop=0.0),  # [b, 6, 14, 14]
        *block(6, 12, drop=0.0),  # [b, 12, 7, 7]
        *block(12, 24, drop=0.1),  # [b, 24, 3, 3]
        *block(24, 32, drop=0.0),  # [b, 32, 1, 1]
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )


def gap() -> nn.Sequential:
    """Convolutions alone, averaged over the image, of whatever size: 9,032 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False),  # [b, 8, 26, 26]
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),  # [b, 8, 24, 24]
        nn.ReLU(),
        nn.MaxPool2d(2),  # [b, 8, 12, 12]
        nn.Conv2d(8, 16, 3, bias=False),  # [b, 16, 10, 10]
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, bias=False),  # [b, 16, 8, 8]
        nn.ReLU(),
        nn.MaxPool2d(2),  # [b, 16, 4, 4]
        nn.Conv2d(16, 32, 3, bias=False),  # [b, 32, 2, 2]
        nn.ReLU(),
        nn.Conv2d(32, CLASSES, 1, bias=False),
        nn.AdaptiveAvgPool2d(1),  # [b, 10, 1, 1]
        nn.Flatten(),
    )


def convolution(channels_in: int, channels_out: int, size: int, pad: int) -> list[nn.Module]:
    """Returns a convolution of `size` × `size` under batch norm, which gives it its bias."""
    return [
        nn.Conv2d(channels_in, channels_out, size, padding=pad, bias=False),
        nn.BatchNorm2d(channels_out),
    ]


def digitnet(first: int, second: int, third: int, fourth: int) -> nn.Sequential:
    """The project's own, accurate and yet quick on one core, in several sizes.

    Channels come in sixteens, which is how the CPU's vector units take them.
    The later convolutions do not pad, which saves three tenths of all
    multiplications. The first batch norm learns the normalisation, and all of them
    vanish into their convolutions on export. Pooling before ReLU gives the same
    as after it, for a quarter of the work in training.

    Args:
        first: channels of the first convolution.
        second: of the second.
        third: of the third.
        fourth: of the last.
    """
    return nn.Sequential(
        *convolution(1, first, 5, pad=0),  # [b, first, 24, 24]
        nn.MaxPool2d(2),  # [b, first, 12, 12]
        nn.ReLU(),
        *convolution(first, second, 3, pad=1),
        nn.ReLU(),
        *convolution(second, third, 3, pad=0),  # [b, third, 10, 10]
        nn.MaxPool2d(2),  # [b, third, 5, 5]
        nn.ReLU(),
        *convolution(third, fourth, 3, pad=0),  # [b, fourth, 3, 3]
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(fourth * 9, CLASSES),
    )


def digitnet_s() -> nn.Sequential:
    """The smallest: 9,834 parameters."""
    return digitnet(16, 16, 16, 20)


def digitnet_m() -> nn.Sequential:
    """The one in the middle, which is meant where no size is said: 19,610 parameters."""
    return digitnet(16, 16, 32, 32)


def digitnet_l() -> nn.Sequential:
    """The largest: 141,930 parameters."""
    return digitnet(32, 64, 64, 128)


def digitnet_xl() -> nn.Sequential:
    """The teachers' own, several times as slow as the largest: 581,506 parameters.

    It never pools, so that its last layer still knows where each stroke ends. The layers are
    those of M7 in An, Lee, Park, Yang and So, "An Ensemble of Simple Convolutional Neural
    Network Models for MNIST Digit Recognition" (2020), with half the channels.
    """
    return nn.Sequential(
        *convolution(1, 24, 7, pad=0),  # [b, 24, 22, 22]
        nn.ReLU(),
        *convolution(24, 48, 7, pad=0),  # [b, 48, 16, 16]
        nn.ReLU(),
        *convolution(48, 72, 7, pad=0),  # [b, 72, 10, 10]
        nn.ReLU(),
        *convolution(72, 96, 7, pad=0),  # [b, 96, 4, 4]
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96 * 16, CLASSES),
    )


ARCHITECTURES: dict[str, Callable[[], nn.Sequential]] = {
    "digitnet": digitnet_m,
    "digitnet-s": digitnet_s,
    "digitnet-l": digitnet_l,
    "digitnet-xl": digitnet_xl,
    "tiny": tiny,
    "dropout": dropout,
    "light": light,
    "gap": gap,
}


def channels_last(model: nn.Sequential) -> nn.Sequential:
    """Returns the model, its weights in the layout that CPUs' and GPUs' convolutions like best."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in its stub
    return model


def parameter_count(model: nn.Module) -> int:
    """Returns the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def example_pixels(batch: int) -> Tensor:
    """Returns pixels of the shape that every architecture takes, [batch, 1, 28, 28]."""
    return torch.zeros(batch, *IMAGE_SHAPE)
