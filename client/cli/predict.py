"""`predict`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console

from client import InvalidInput, Prediction
from client.cli import show
from client.cli.connection import (
    Connection,
    Failure,
    connection_options,
    data_options,
    json_option,
    load_dataset,
    model_options,
    print_json,
)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image to ask about: where it is from, float32 [28, 28], and its label if known."""

    source: str
    pixels: npt.NDArray[np.float32]
    label: int | None = None


@click.command()
@connection_options
@model_options
@data_options
@click.option("--index", "indices", multiple=True, type=int, help="A test image, by its number.")
@click.option("--random", "count", default=0, type=click.IntRange(0), help="So many test images.")
@click.option("--seed", type=int, help="Chooses the same --random images again.")
@click.option(
    "--image",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A PNG, JPEG or WebP picture of a digit, dark on light or light on dark.",
)
@click.option("--samples", is_flag=True, help="Ten digits that ship with the project.")
@json_option
def predict(
    connection: Connection,
    *,
    model: str,
    version: int,
    dataset: str,
    data: Path,
    indices: tuple[int, ...],
    count: int,
    seed: int | None,
    files: tuple[Path, ...],
    samples: bool,
    as_json: bool,
) -> None:
    """Recognise test images, pictures of your own, or the samples that ship with the project.

    --index and --image can be given several times, and all kinds together. The JSON
    object has `predictions`, a list of objects with `source`, `label` (null where
    unknown), `digit`, `confidence`, `probabilities`, `logits`, `model` and
    `model_version`.
    """
    if not (indices or count or files or samples):
        raise click.UsageError("Say what to recognise: --samples, --index, --random or --image.")
    pictures = []
    if indices or count:
        pictures += list(_test_images(dataset, data, indices, count, seed))
    if files or samples:
        pictures += list(_prepared(files, samples=samples))
    with connection.client() as client:
        predictions = [
            client.predict(picture.pixels, model=model, version=version) for picture in pictures
        ]
    pairs = list(zip(pictures, predictions, strict=True))
    if as_json:
        print_json({"predictions": [_plain(picture, answer) for picture, answer in pairs]})
        return
    console = Console(highlight=False)
    for picture, answer in pairs:
        console.print(show.answer(picture.source, picture.pixels, picture.label, answer, console))
    console.print(f"answered by {predictions[0].model}/{predictions[0].model_version}", style="dim")


def _test_images(
    choice: str, data: Path, indices: tuple[int, ...], count: int, seed: int | None
) -> Iterator[Picture]:
    dataset = load_dataset(choice, data)
    total = len(dataset.images)
    for index in indices:
        if not 0 <= index < total:
            raise click.UsageError(f"There is no test image {index}: take one of 0 to {total - 1}.")
    if count > total:
        raise click.UsageError(f"There are {total} test images: ask for as many at most.")
    drawn = np.random.default_rng(seed).choice(total, count, replace=False)
    for index in (*indices, *drawn.tolist()):
        yield Picture(
            f"test image {index}",
            dataset.images[index].astype(np.float32) / np.float32(255),
            int(dataset.labels[index]),
        )


def _prepared(files: tuple[Path, ...], *, samples: bool) -> Iterator[Picture]:
    from client import images  # noqa: PLC0415 - Pillow is not needed for test images
    from client.samples import STROKES, draw  # noqa: PLC0415 - as above

    for file in files:
        try:
            yield Picture(str(file), images.prepare(images.load(file)))
        except InvalidInput as error:
            raise Failure(f"{file}: {error}") from error
    if samples:
        for digit in STROKES:
            yield Picture(f"sample {digit}", images.prepare(draw(digit)), digit)


def _plain(picture: Picture, answer: Prediction) -> dict[str, object]:
    return {
        "source": picture.source,
        "label": picture.label,
        "digit": answer.digit,
        "confidence": answer.confidence,
        "probabilities": answer.probabilities.tolist(),
        "logits": answer.logits.tolist(),
        "model": answer.model,
        "model_version": answer.model_version,
    }
