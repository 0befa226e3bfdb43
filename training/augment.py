"""Bends and moves whole batches of images at once, on their device."""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from training.config import Recipe

# Spacing of the elastic field's knots, in pixels: wide enough that a stroke
# bends as a whole, narrow enough that its ends bend differently.
KNOT_SPACING = 7


def augment(images: Tensor, recipe: Recipe) -> Tensor:
    """Returns images moved by a random affine map and bent by a random elastic field.

    The elastic field follows Simard, Steinkraus and Platt, "Best Practices for
    Convolutional Neural Networks Applied to Visual Document Analysis" (2003),
    with smoothness from bicubic interpolation between knots in place of a
    Gaussian. Draws from torch's global generator.

    Args:
        images: float [n, 1, h, w]; what lies outside is background, 0.
        recipe: says how far; with all its augmentations at 0 images are returned as they are.
    """
    if not (recipe.rotation or recipe.shear or recipe.scale or recipe.shift or recipe.elastic):
        return images
    n, _, height, width = images.shape
    # Sampling grids are in units of half the image's side, from its centre.
    pixel = torch.cat([images.new_full((1,), 2 / side) for side in (width, height)])
    grid = affine_grid(_affine(n, pixel, recipe), list(images.shape), align_corners=False)
    if recipe.elastic:
        knots = (n, 2, height // KNOT_SPACING + 1, width // KNOT_SPACING + 1)
        field = torch.randn(knots, device=images.device)
        field = interpolate(field, (height, width), mode="bicubic", align_corners=True)
        grid = grid + recipe.elastic * pixel * field.permute(0, 2, 3, 1)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _affine(n: int, pixel: Tensor, recipe: Recipe) -> Tensor:
    """Returns random affine maps [n, 2, 3]: scaled, sheared, rotated, then shifted."""

    def uniform(bound: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape, device=pixel.device).uniform_(-bound, bound)

    angle = uniform(math.radians(recipe.rotation))
    shear = uniform(math.radians(recipe.shear)).tan()
    scale = 1 + uniform(recipe.scale, 2)
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([cos, -sin, sin, cos], 1).view(n, 2, 2)
    one, zero = torch.ones_like(shear), torch.zeros_like(shear)
    slant = torch.stack([one, shear, zero, one], 1).view(n, 2, 2)
    shift = uniform(recipe.shift, 2) * pixel
    return torch.cat([rotation @ slant * scale[:, None], shift[:, :, None]], 2)
