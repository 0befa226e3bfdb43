"""Turns what callers have (arrays, lists, bytes of pixels) into the wire's float32.

Only shapes and types are judged here. Whether the values are finite and lie in
[0, 1] is the server's to say, so that callers in every language are told the same.
"""

from collections.abc import Iterable
from typing import cast

import numpy as np
import numpy.typing as npt

from client._errors import FieldViolation, InvalidInput

SIDE = 28
PIXELS = SIDE * SIDE

Pixels = npt.NDArray[np.float32]

_SHAPES = ((SIDE, SIDE), (PIXELS,), (1, SIDE, SIDE))


def as_image(image: npt.ArrayLike) -> Pixels:
    """Returns one image as float32 [784].

    Args:
        image: Shape [28, 28], [784] or [1, 28, 28], row by row from the top left;
            0 is background. uint8 is taken as 0 to 255 and divided by 255; other
            numbers are taken as they are and should lie in [0, 1].

    Raises:
        InvalidInput: It has another shape, or holds no numbers.
    """
    array = _as_floats(image)
    if array.shape not in _SHAPES:
        raise _invalid(
            f"An image is an array of 28×28 or of 784 values; this one has the shape {array.shape}."
        )
    return array.reshape(PIXELS)


def as_batch(images: npt.ArrayLike | Iterable[npt.ArrayLike]) -> Pixels:
    """Returns many images as float32 [n, 784].

    Args:
        images: One array whose first axis counts the images, or an iterable of
            images; each as in `as_image`.

    Raises:
        InvalidInput: One of them has another shape, or holds no numbers.
    """
    if not hasattr(images, "__array__"):
        return _stack(cast("Iterable[npt.ArrayLike]", images))
    array = _as_floats(cast("npt.ArrayLike", images))
    if array.shape[1:] not in _SHAPES:
        raise _invalid(
            "A batch is an array of n×28×28 or of n×784 values; "
            f"this one has the shape {array.shape}."
        )
    return array.reshape(-1, PIXELS)


def _stack(images: Iterable[npt.ArrayLike]) -> Pixels:
    rows: list[Pixels] = []
    for image in images:
        try:
            rows.append(as_image(image))
        except InvalidInput as error:
            raise _invalid(f"Image {len(rows)} of the batch: {error}") from error
    return np.stack(rows) if rows else np.empty((0, PIXELS), np.float32)


def _as_floats(image: npt.ArrayLike) -> Pixels:
    try:
        array = np.asarray(image)
    except ValueError as error:
        raise _invalid("An image's rows must all have the same length.") from error
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    if array.dtype.kind not in "fiub":
        raise _invalid(
            "An image holds numbers: floats in [0, 1] or uint8 from 0 to 255; "
            f"this one holds {array.dtype}."
        )
    with np.errstate(over="ignore"):  # what does not fit becomes inf, which the server refuses
        return array.astype(np.float32, copy=False)


def _invalid(sentence: str) -> InvalidInput:
    return InvalidInput(sentence, violations=(FieldViolation("pixels", sentence),))
