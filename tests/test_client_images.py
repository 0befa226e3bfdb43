"""Pictures become what MNIST would have made of them."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from client import DigitClient, InvalidInput
from client.images import load, prepare
from client.samples import STROKES
from client.samples import draw as draw_anew

Picture = Image.Image
SIDES = (100, 280, 1000)
draw = cache(draw_anew)


def off_centre(picture: Picture) -> Picture:
    """The picture in the upper right of one twice as large."""
    side = picture.width
    larger = Image.new("L", (2 * side, 2 * side), "white")
    larger.paste(picture, (side, 0))
    return larger


def on_nothing(picture: Picture) -> Picture:
    """Black ink on a transparent ground."""
    transparent = Image.new("RGBA", picture.size, "black")
    transparent.putalpha(ImageOps.invert(picture))
    return transparent


def sixteen_bits(picture: Picture) -> Picture:
    """The same with 16 bits a pixel."""
    return Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)


def photographed(picture: Picture) -> Picture:
    """On greyish paper, lit from the right, with noise, a speck and JPEG's traces."""
    grey = np.asarray(picture, float) * 0.7 + 50
    grey *= np.linspace(0.8, 1, picture.width)
    grey += np.random.default_rng(0).normal(0, 4, grey.shape)
    speck = picture.width // 20
    grey[speck : 2 * speck, speck : 2 * speck] = 60
    file = io.BytesIO()
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=50)
    file.seek(0)
    return load(file)


VARIANTS: dict[str, Callable[[Picture], Picture]] = {
    "dark on light": lambda picture: picture,
    "light on dark": ImageOps.invert,
    "off centre": off_centre,
    "tilted": lambda picture: picture.rotate(10, fillcolor="white"),
    "transparent": on_nothing,
    "palette": lambda picture: picture.convert("P"),
    "black and white": lambda picture: picture.convert("1"),
    "CMYK": lambda picture: picture.convert("CMYK"),
    "16 bits": sixteen_bits,
    "photographed": photographed,
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("thickness", [0.025, 0.07, 0.12], ids=["thin", "medium", "thick"])
def test_drawings_are_recognised(server: Any, variant: str, thickness: float) -> None:
    """All ten digits, in three sizes each, are what the bundled model says they are."""
    pictures = [
        prepare(VARIANTS[variant](draw(digit, side, thickness)))
        for side in SIDES
        for digit in STROKES
    ]
    with DigitClient(server.address) as client:
        answers = [prediction.digit for prediction in client.predict_batch(pictures)]
    assert answers == list(STROKES) * len(SIDES)


@pytest.mark.parametrize("digit", STROKES)
def test_the_form_is_mnists(digit: int) -> None:
    """The digit fits 20×20, one side exactly, its mass within a pixel of the middle of 28×28."""
    image = prepare(off_centre(draw(digit)))
    assert image.shape == (28, 28)
    assert image.dtype == np.float32
    assert (image.min(), image.max()) == (0, 1)
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    mass = [np.average(np.arange(28) + 0.5, weights=image.sum(axis=1 - axis)) for axis in (0, 1)]
    assert np.abs(np.array(mass) - 14).max() <= 1


@pytest.mark.parametrize("digit", STROKES)
def test_the_size_of_a_drawing_does_not_matter(digit: int) -> None:
    """The same drawing at 100, 280 and 1,000 pixels gives nearly the same image, light or dark."""
    reference = prepare(draw(digit))
    for side in SIDES:
        for picture in (draw(digit, side), ImageOps.invert(draw(digit, side))):
            assert _likeness(prepare(picture), reference) > 0.93


def test_the_same_picture_gives_the_same_image() -> None:
    """Nothing is left to chance."""
    assert np.array_equal(prepare(draw(5)), prepare(draw(5)))


def test_a_five_keeps_its_bar_and_loses_a_speck() -> None:
    """A stroke that touches no other stays if it is large, and goes if it is small."""
    clean = Image.new("L", (200, 200), "white")
    clean.paste("black", (60, 80, 80, 160))
    clean.paste("black", (100, 60, 150, 72))
    specked = clean.copy()
    specked.paste("black", (10, 10, 16, 16))
    assert np.array_equal(prepare(specked), prepare(clean))
    alone = Image.new("L", (200, 200), "white")
    alone.paste("black", (60, 80, 80, 160))
    assert not np.array_equal(prepare(clean), prepare(alone))


def test_a_camera_held_sideways_does_not_matter(tmp_path: Path) -> None:
    """The orientation that a camera notes in EXIF is followed."""
    file = tmp_path / "sideways.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    draw(7).rotate(90).save(file, exif=exif, quality=95)
    assert _likeness(prepare(load(file)), prepare(draw(7))) > 0.97


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (100, 100), "white"),
        Image.new("RGB", (100, 100), "black"),
        Image.new("RGBA", (100, 100)),
        Image.new("1", (1, 1)),
        Image.fromarray(np.random.default_rng(0).normal(200, 3, (99, 99)).astype(np.uint8)),
    ],
    ids=["white", "black", "transparent", "one pixel", "noise"],
)
def test_an_empty_picture_is_refused(picture: Picture) -> None:
    """Where nothing is drawn, there is no digit to make up."""
    with pytest.raises(InvalidInput, match="shows nothing: draw a digit") as caught:
        prepare(picture)
    assert caught.value.violations[0].field == "image"


def _png(side: int = 100) -> bytes:
    file = io.BytesIO()
    draw(3, side).save(file, "PNG")
    return file.getvalue()


def _bomb() -> bytes:
    """Builds a PNG that claims to be 100,000 pixels wide and high."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 1000) + b"IDAT"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no PNG, JPEG or WebP"),
        (b"<svg/>", "no PNG, JPEG or WebP"),
        (_png()[: len(_png()) // 2], "truncated or damaged"),
        (_png()[:60] + b"?" * 100 + _png()[160:], "truncated or damaged"),
        (_bomb(), "more than 89,478,485 pixels: send a smaller"),
    ],
    ids=["nothing", "SVG", "half a PNG", "a changed PNG", "a bomb"],
)
def test_what_is_no_picture_is_refused(content: bytes, sentence: str) -> None:
    """A file that cannot be read as a picture is one sentence."""
    with pytest.raises(InvalidInput, match=sentence):
        load(io.BytesIO(content))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_a_large_picture_is_taken_as_a_small_one(mode: str) -> None:
    """One of many more pixels than are needed is reduced early, to the same image."""
    large = io.BytesIO()
    draw(6, 3000).convert(mode).save(large, "PNG")
    loaded = load(large)
    assert max(loaded.size) <= (3000 if mode in {"P", "1"} else 2 * 1120)
    assert _likeness(prepare(loaded), prepare(draw(6))) > 0.93


def test_fewer_pixels_can_be_asked_for() -> None:
    """A picture above the caller's own limit is refused before it is decoded."""
    assert load(io.BytesIO(_png(100)), max_pixels=10_000).size == (100, 100)
    truncated = _png(101)[:60]
    with pytest.raises(InvalidInput, match="more than 10,000 pixels: send a smaller"):
        load(io.BytesIO(truncated), max_pixels=10_000)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    """The file system's errors are left as they are."""
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.png")


def _likeness(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Returns the correlation of two images, 1 at best, up to a pixel's move by rounding."""
    moves = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    moved = [np.roll(one, move, axis=(0, 1)).ravel() for move in moves]
    return max(float(np.corrcoef(image, other.ravel())[0, 1]) for image in moved)
