"""Prepares pictures of digits as MNIST prepared its own.

MNIST's digits were size-normalised to fit 20×20 pixels with their aspect ratio
kept, and centred in 28×28 by their centre of mass
(https://yann.lecun.com/exdb/mnist). Models know nothing else, so a picture is
brought to that form first: its background is taken away whatever its brightness,
specks are dropped, and strokes that would be thinner than a pen's are thickened.
"""

import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from client._errors import FieldViolation, InvalidInput

# Pillow's own limit; above it, it warns, and above twice that it fails.
MAX_PIXELS = 89_478_485
warnings.simplefilter("error", Image.DecompressionBombWarning)

Grey = npt.NDArray[np.floating[Any]]

SIDE = 28  # the prepared picture
BOX = 20  # the digit in it
FORMATS = ("PNG", "JPEG", "WEBP")

# Enough to see the thinnest stroke, and little enough to bound time and memory.
_WORKING_SIDE = 560
_LABEL_SIDE = 112
_REDUCIBLE = {"L", "LA", "RGB", "RGBA", "CMYK"}  # the modes that Pillow averages
_GREY = 0.5  # halfway from black to white
_LEAST_CONTRAST = 0.1  # between stroke and background, of black to white
_LEAST_SHARE = 0.1  # of the largest stroke's ink: a 5's bar is kept, a speck is not
_PEN = 2.0  # the least width of a stroke in the prepared picture, in pixels


def load(file: Path | str | IO[bytes], *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens a PNG, JPEG or WebP picture, the right way up.

    Args:
        file: Its path, or the file itself, opened for bytes.
        max_pixels: What it may have at most; one that has more is never decoded.

    Raises:
        InvalidInput: It is no such picture, is damaged, or is too large.
        OSError: It cannot be read.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise _too_large(max_pixels)
            image.draft("RGB", (_WORKING_SIDE, _WORKING_SIDE))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            # What is made of it needs no more, and every copy would take its memory again.
            factor = max(image.size) // (2 * _WORKING_SIDE)
            return image.reduce(factor) if factor > 1 and image.mode in _REDUCIBLE else image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(max_pixels) from error
    except UnidentifiedImageError as error:
        raise _invalid("The file is no PNG, JPEG or WebP picture: send one of these.") from error
    except OSError as error:
        if error.errno is not None:  # the file system's, not Pillow's
            raise
        raise _invalid("The picture is truncated or damaged: save it again.") from error
    except (SyntaxError, ValueError) as error:  # what Pillow raises for damaged PNG chunks
        raise _invalid("The picture is truncated or damaged: save it again.") from error


def prepare(image: Image.Image) -> npt.NDArray[np.float32]:
    """Returns the digit in a picture as MNIST would have it.

    Args:
        image: Any mode and size, dark on light or light on dark, transparent or not.

    Returns:
        float32 [28, 28] in [0, 1]: 0 is background, 1 is ink.

    Raises:
        InvalidInput: The picture shows nothing.
    """
    ink = _ink(_flatten(_grey(image)))
    ink = _crop(ink * _large_strokes(ink))
    digit = _fit(_thicken(ink))
    return _centre(digit / digit.max())


def _grey(image: Image.Image) -> Grey:
    """Returns the brightness, [0, 1], at the working size; transparency takes the background's."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image, np.float32) / 257).astype(np.uint8))
    image = image.convert("RGBA")
    image.thumbnail((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.BOX)
    alpha = np.asarray(image.getchannel("A"), np.float32) / 255
    grey = np.asarray(image.convert("L"), np.float32) / 255
    if not alpha.any():
        raise _blank()
    background = np.float32(np.average(grey, weights=alpha) < _GREY)
    return grey * alpha + background * (1 - alpha)


def _flatten(grey: Grey) -> Grey:
    """Takes away what light from one side does: the plane that fits the picture's frame best."""
    height, width = grey.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    plane = np.stack([np.ones_like(x), x, y], axis=-1)
    _, *slope = np.linalg.lstsq(_frame(plane), _frame(grey))[0]
    flat: Grey = np.clip(grey - plane[..., 1:] @ slope, 0, 1).astype(np.float32)
    return flat


def _frame(values: Grey) -> Grey:
    """Returns the outermost pixels, [n, ...]."""
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def _ink(grey: Grey) -> Grey:
    """Returns how much each pixel is stroke, [0, 1]; the frame of the picture is background."""
    threshold = _otsu(grey)
    if np.median(_frame(grey)) > threshold:
        grey, threshold = 1 - grey, 1 - threshold
    stroke = grey > threshold
    if not stroke.any() or stroke.all():
        raise _blank()
    paper, pen = np.median(grey[~stroke]), np.median(grey[stroke])
    if pen - paper < _LEAST_CONTRAST:
        raise _blank()
    # The lowest fifth is the paper's own unevenness.
    ink: Grey = np.clip((grey - paper) / (pen - paper) * 1.25 - 0.25, 0, 1)
    return ink


def _otsu(grey: Grey) -> float:
    """Returns the brightness that parts a picture best in two.

    It has the largest variance between the two classes: Otsu, "A threshold selection
    method from gray-level histograms", 1979.
    """
    counts, edges = np.histogram(grey, bins=256, range=(0, 1))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = grey.size - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    # Many thresholds may be equally good: the middle one leaves both sides their fringe.
    best = np.nan_to_num(between)
    ties = np.flatnonzero(best >= best.max() * (1 - 1e-9))
    return float(edges[1 + ties[len(ties) // 2]])


def _large_strokes(ink: Grey) -> npt.NDArray[np.bool_]:
    """Marks the strokes that are the digit's, in the shape of `ink`, and leaves out specks."""
    height, width = ink.shape
    scale = min(1, _LABEL_SIDE / max(height, width))
    small = _resize(ink, max(1, round(width * scale)), max(1, round(height * scale)))
    labels = _components(small > 0)
    shares = np.bincount(labels.ravel(), small.ravel())
    shares[0] = 0  # the background
    kept = (shares >= _LEAST_SHARE * shares.max())[labels]
    kept[labels == 0] = True  # a kept stroke's fringe may lie there, and nothing else does
    return _resize(kept.astype(np.float32), width, height, Image.Resampling.NEAREST) > 0


def _components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Numbers the connected parts of a mask, corners counting as connected; 0 is outside.

    Every pixel takes the highest number around it, then that number's own, until
    nothing changes.
    """
    own = np.arange(1, mask.size + 1).reshape(mask.shape)
    labels = np.where(mask, own, 0)
    while True:
        around = np.pad(labels, 1)
        around = np.maximum(np.maximum(around[:-2], around[1:-1]), around[2:])
        around = np.maximum(np.maximum(around[:, :-2], around[:, 1:-1]), around[:, 2:])
        chased = np.concatenate([[0], np.where(mask, around, 0).ravel()])
        spread = chased[chased[1:]].reshape(mask.shape)
        if np.array_equal(spread, labels):
            return labels
        labels = spread


def _thicken(ink: Grey) -> Grey:
    """Returns the cropped digit at five times its final size, its strokes a pen wide at least."""
    fine = 5
    height, width = ink.shape
    scale = fine * BOX / max(height, width)
    ink = _resize(ink, max(1, round(width * scale)), max(1, round(height * scale)))
    ink = np.pad(ink / ink.max(), round(fine * _PEN)).astype(np.float32)
    # A stroke's area over half its outline is its width.
    slopes = np.hypot(*np.gradient(ink))
    missing = fine * _PEN - 2 * ink.sum() / slopes.sum()
    if missing > 1:
        picture = Image.fromarray((ink * 255).astype(np.uint8))
        for _ in range(round(missing / 2)):
            picture = picture.filter(ImageFilter.MaxFilter(3))
        ink = np.asarray(picture, np.float32) / 255
    return _crop(ink)


def _fit(ink: Grey) -> Grey:
    """Returns the digit with its longer side as long as MNIST's box."""
    height, width = ink.shape
    scale = BOX / max(height, width)
    return _resize(ink, max(1, round(width * scale)), max(1, round(height * scale)))


def _centre(digit: Grey) -> npt.NDArray[np.float32]:
    """Puts the digit's centre of mass in the middle of the picture, as near as pixels allow."""
    canvas = np.zeros((SIDE, SIDE), np.float32)
    corners = []
    for axis, length in enumerate(digit.shape):
        mass = digit.sum(axis=1 - axis)
        centre = np.average(np.arange(length) + 0.5, weights=mass)
        corners.append(int(np.clip(round(SIDE / 2 - centre), 0, SIDE - length)))
    (top, left), (height, width) = corners, digit.shape
    canvas[top : top + height, left : left + width] = digit
    return canvas


def _crop(ink: Grey) -> Grey:
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _resize(
    values: Grey,
    width: int,
    height: int,
    filter_: Image.Resampling = Image.Resampling.BOX,
) -> Grey:
    return np.asarray(Image.fromarray(values).resize((width, height), filter_), np.float32)


def _blank() -> InvalidInput:
    return _invalid("The picture shows nothing: draw a digit on it.")


def _too_large(max_pixels: int) -> InvalidInput:
    return _invalid(f"The picture has more than {max_pixels:,} pixels: send a smaller picture.")


def _invalid(sentence: str) -> InvalidInput:
    return InvalidInput(sentence, violations=(FieldViolation("image", sentence),))
