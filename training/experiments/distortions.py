"""Distorts whole batches of images, each in one way and by a stated strength.

Where Mu and Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision"
(2019), has the same distortion it has the same name. Strengths are our own,
from hardly visible to hard for a human reader.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import (
    affine_grid,
    avg_pool2d,
    conv2d,
    grid_sample,
    interpolate,
    max_pool2d,
)

MARGIN = 4  # pixels that MNIST leaves free on each side of a digit
PIECE = 6  # side of the squares that clutter is made of, in pixels
SUBPIXELS = 2  # per side of a pixel: a stroke that grows by one pixel grows by half a one each way


@dataclass(frozen=True)
class Distortion:
    """A way to distort images.

    Attributes:
        apply: takes images [n, 1, h, w] in [0, 1], a strength and where to draw
            from, and returns as many distorted images.
        unit: what a strength counts.
        none: the strength that would leave images as they are.
        strengths: those to measure at.
    """

    apply: Callable[[Tensor, float, Generator], Tensor]
    unit: str
    none: float
    strengths: tuple[float, ...]


def distort(images: Tensor, name: str, strength: float, random: Generator) -> Tensor:
    """Returns images distorted in the way called `name`, in [0, 1] as they were.

    Args:
        images: float [n, 1, h, w] in [0, 1], on the CPU.
        name: one of `DISTORTIONS`.
        strength: in its unit.
        random: where to draw from what differs from image to image.
    """
    return DISTORTIONS[name].apply(images, strength, random).clamp(0, 1)


def translate(images: Tensor, pixels: float, random: Generator) -> Tensor:
    """Moves each image by so many pixels, up or down and left or right at once."""
    half_sides = images.new_tensor([images.shape[3] / 2, images.shape[2] / 2])
    shift = _signs(len(images), 2, random) * pixels / half_sides
    return _resample(images, torch.eye(2).expand(len(images), 2, 2), shift)


def rotate(images: Tensor, degrees: float, random: Generator) -> Tensor:
    """Turns each image about its centre, one way or the other."""
    angle = _signs(len(images), 1, random) * math.radians(degrees)
    cos, sin = angle.cos(), angle.sin()
    return _resample(images, torch.cat([cos, -sin, sin, cos], 1).view(-1, 2, 2))


def scale(images: Tensor, factor: float, _: Generator) -> Tensor:
    """Makes images larger or smaller about their centre."""
    return _resample(images, torch.eye(2).expand(len(images), 2, 2) / factor)


def shear(images: Tensor, degrees: float, random: Generator) -> Tensor:
    """Slants each image to the left or to the right: uprights lean so far."""
    slant = _signs(len(images), 1, random) * math.tan(math.radians(degrees))
    one, zero = torch.ones_like(slant), torch.zeros_like(slant)
    return _resample(images, torch.cat([one, slant, zero, one], 1).view(-1, 2, 2))


def gaussian_blur(images: Tensor, sigma: float, _: Generator) -> Tensor:
    """Blurs images by a Gaussian of that standard deviation in pixels."""
    reach = math.ceil(3 * sigma)
    weights = torch.arange(-reach, reach + 1).div(sigma).square().div(-2).softmax(0)
    row = weights.view(1, 1, 1, -1)
    return conv2d(conv2d(images, row, padding="same"), row.mT, padding="same")


def gaussian_noise(images: Tensor, deviation: float, random: Generator) -> Tensor:
    """Adds normal noise to each pixel."""
    return images + deviation * torch.randn(images.shape, generator=random)


def thickness(images: Tensor, pixels: float, _: Generator) -> Tensor:
    """Widens strokes by so many pixels, or thins them: grey-scale dilation and erosion.

    After Castro et al., "Morpho-MNIST" (2019), with a square as the structuring element.
    """
    side = round(abs(pixels) * SUBPIXELS) + 1
    fine = interpolate(images, scale_factor=SUBPIXELS, mode="nearest")
    sign = math.copysign(1, pixels)
    wide = max_pool2d(sign * fine, (1, side), stride=1, padding=(0, side // 2))
    high = max_pool2d(wide, (side, 1), stride=1, padding=(side // 2, 0))
    return avg_pool2d(sign * high, SUBPIXELS)


def contrast(images: Tensor, factor: float, _: Generator) -> Tensor:
    """Draws all pixels of an image towards their mean: pale ink on grey paper."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + factor * (images - mean)


def clutter(images: Tensor, pieces: float, random: Generator) -> Tensor:
    """Lays square pieces of the batch's digits over each image, anywhere.

    After the cluttered MNIST of Mnih et al., "Recurrent Models of Visual Attention" (2014).
    """
    n, _, height, width = images.shape
    squares = images.squeeze(1).unfold(1, PIECE, 1).unfold(2, PIECE, 1)  # [n, rows, columns, 6, 6]

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (n,), generator=random)

    cluttered = images.clone()
    image = torch.arange(n)[:, None, None]
    side = torch.arange(PIECE)
    for _ in range(round(pieces)):
        source = draw(0, n - 1)
        from_row = draw(MARGIN, height - MARGIN - PIECE)
        from_column = draw(MARGIN, width - MARGIN - PIECE)
        rows = draw(0, height - PIECE)[:, None, None] + side[:, None]
        columns = draw(0, width - PIECE)[:, None, None] + side
        there = cluttered[image, 0, rows, columns]
        piece = squares[source, from_row, from_column]
        cluttered[image, 0, rows, columns] = there.maximum(piece)
    return cluttered


def _signs(n: int, columns: int, random: Generator) -> Tensor:
    """Draws [n, columns] numbers, each -1 or 1."""
    return torch.randint(0, 2, (n, columns), generator=random) * 2.0 - 1


def _resample(images: Tensor, linear: Tensor, shift: Tensor | None = None) -> Tensor:
    """Returns images whose pixels are looked up where an affine map says; outside is 0.

    Args:
        images: [n, 1, h, w].
        linear: [n, 2, 2], x before y, from places in the result to places in the image.
        shift: [n, 2] in half sides, added to that.
    """
    shift = torch.zeros(len(images), 2) if shift is None else shift
    maps = torch.cat([linear, shift[:, :, None]], 2)
    grid = affine_grid(maps, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


DISTORTIONS = {
    "translate": Distortion(translate, "pixels", 0, (1, 2, 3, 4, 5)),
    "rotate": Distortion(rotate, "degrees", 0, (10, 20, 30, 40, 50)),
    "scale": Distortion(scale, "times its size", 1, (0.5, 0.65, 0.8, 1.2, 1.4)),
    "shear": Distortion(shear, "degrees", 0, (10, 20, 30, 40, 50)),
    "gaussian_blur": Distortion(gaussian_blur, "pixels", 0, (0.5, 1, 1.5, 2, 2.5)),
    "gaussian_noise": Distortion(
        gaussian_noise, "standard deviation", 0, (0.1, 0.2, 0.3, 0.4, 0.5)
    ),
    "thickness": Distortion(thickness, "pixels", 0, (-1, 1, 2, 3, 4)),
    "contrast": Distortion(contrast, "times its contrast", 1, (0.5, 0.4, 0.3, 0.2, 0.1)),
    "clutter": Distortion(clutter, "pieces", 0, (1, 2, 3, 4, 6)),
}
