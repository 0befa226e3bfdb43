"""Augmentation moves and bends images, as far as the recipe allows and no further."""

import pytest
import torch
from torch import Tensor

from training.augment import augment
from training.config import Recipe


@pytest.fixture
def dots() -> Tensor:
    """256 images of the same soft dot, a little off the centre."""
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    dot = torch.exp(-((rows - 11) ** 2 + (columns - 15) ** 2) / 8)
    return dot.expand(256, 1, 28, 28).contiguous()


def centres(images: Tensor) -> Tensor:
    """Returns each image's centre of mass, [n, 2], as row and column."""
    weights = images.squeeze(1) / images.sum((1, 2, 3))[:, None, None]
    places = torch.arange(28.0)
    return torch.stack([weights.sum(2) @ places, weights.sum(1) @ places], 1)


def test_nothing_asked_nothing_done(dots: Tensor) -> None:
    """A recipe without augmentation gets the very images it gave."""
    assert augment(dots, Recipe()) is dots


def test_shift_stays_within_its_bound(dots: Tensor) -> None:
    """Images move by up to the given pixels, up and down, left and right."""
    moved = centres(augment(dots, Recipe(shift=2))) - centres(dots)
    assert moved.abs().max() <= 2.05
    assert moved.amax(0).min() > 1.5
    assert moved.amin(0).max() < -1.5


def test_rotation_keeps_the_distance_from_the_centre(dots: Tensor) -> None:
    """A rotation turns images about their centre."""
    turned = centres(augment(dots, Recipe(rotation=30))) - 13.5
    assert turned.std(0).min() > 0.3
    radius = (centres(dots) - 13.5).norm(dim=1)
    torch.testing.assert_close(turned.norm(dim=1), radius, atol=0.05, rtol=0)


def test_scale_changes_the_ink(dots: Tensor) -> None:
    """Scaling by up to a tenth each way changes the ink by at most its square."""
    ink = augment(dots, Recipe(scale=0.1)).sum((1, 2, 3)) / dots.sum((1, 2, 3))
    assert 0.8 < ink.min() < 0.9
    assert 1.1 < ink.max() < 1.25


@pytest.mark.parametrize(
    "recipe",
    [Recipe(rotation=9), Recipe(shear=9), Recipe(scale=0.1), Recipe(shift=1), Recipe(elastic=1)],
)
def test_each_image_its_own_way(dots: Tensor, recipe: Recipe) -> None:
    """No two images of a batch are changed alike, and pixels stay in [0, 1]."""
    images = augment(dots, recipe)
    assert len({image.numpy().tobytes() for image in images}) == len(images)
    assert images.min() >= 0
    assert images.max() <= 1


def test_elastic_displacement_is_in_pixels(dots: Tensor) -> None:
    """An elastic field moves a dot by about as many pixels as asked for."""
    moved = centres(augment(dots, Recipe(elastic=1))) - centres(dots)
    assert 0.3 < moved.std() < 1.2
