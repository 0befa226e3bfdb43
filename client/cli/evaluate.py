"""`evaluate`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.text import Text

from client import Model
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
from client.evaluation import DIGITS, MODES, Evaluation, Plan
from client.evaluation import evaluate as run

PERCENTILES = (50, 90, 99)
PLOTS = (".png", ".pdf", ".svg")


def _plot_file(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
    if file is not None and file.suffix not in PLOTS:
        raise click.BadParameter(f"its name must end in one of {', '.join(PLOTS)}.")
    if file is not None and not file.parent.is_dir():
        raise click.BadParameter(f"there is no folder {file.parent}.")
    return file


@click.command()
@connection_options
@model_options
@data_options
@click.option(
    "--mode",
    default="unary",
    show_default=True,
    type=click.Choice(MODES),
    help="One call for each image, for each batch, or one stream for many images.",
)
@click.option(
    "--concurrency",
    default=4,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Calls or streams at a time.",
)
@click.option(
    "--batch-size",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="Images in a batch, or under way at a time in each stream.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_plot_file,
    help="Draw the confusion matrix and the mistaken digits into this file.",
)
@json_option
def evaluate(
    connection: Connection,
    *,
    model: str,
    version: int,
    dataset: str,
    data: Path,
    mode: str,
    concurrency: int,
    batch_size: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Send all test images to the server and count what it gets right.

    Exits with 1 where the model was measured on the same data set at export and got
    even one image more or less right. The JSON object has `model`, `model_version`,
    `dataset`, `images`, `correct`, `accuracy`, `expected_accuracy` (null where the
    model was trained on another data set), `confusion` (rows are true digits, columns
    answers), `mistakes` (a list of objects with `index`, `label` and `digit`), `mode`,
    `latency_ms` (with `p50`, `p90` and `p99`), `seconds` and `images_per_second`.
    """
    images = load_dataset(dataset, data)
    plan = Plan(
        mode=mode, concurrency=concurrency, batch_size=batch_size, model=model, version=version
    )
    with connection.client() as client, _progress(len(images.images)) as advance:
        evaluation = run(client, images, plan, advance)
        asked = _who_answered(evaluation, client.models())
    if plot is not None:
        from client.plots import draw  # noqa: PLC0415 - matplotlib is slow to import

        draw(evaluation, plot)
    expected = _expected(evaluation, asked)
    if as_json:
        print_json(_plain(evaluation, asked, mode))
    else:
        _print(evaluation, asked, Console(highlight=False))
    if expected not in (None, evaluation.correct):
        raise Failure(
            f"{asked.name}/{asked.version} had {expected:,} of these images right when it was "
            f"exported, and now {evaluation.correct:,}: it is not served as it was measured."
        )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("images", total=total)
        yield lambda count: progress.advance(task, count)


def _who_answered(evaluation: Evaluation, models: list[Model]) -> Model:
    """Returns the one model that answered all images."""
    found = [model for model in models if (model.name, model.version) in evaluation.answered_by]
    if len(evaluation.answered_by) == len(found) == 1:
        return found[0]
    names = ", ".join(f"{name}/{version}" for name, version in sorted(evaluation.answered_by))
    raise Failure(f"The models changed meanwhile ({names} answered): evaluate again.")


def _expected(evaluation: Evaluation, model: Model) -> int | None:
    """Returns how many images the model had right at export; None if it was on other data."""
    if model.dataset_sha256 != evaluation.dataset.sha256:
        return None
    return round(model.test_accuracy * len(evaluation.answers))


def _plain(evaluation: Evaluation, model: Model, mode: str) -> dict[str, object]:
    labels, answers = evaluation.dataset.labels, evaluation.answers
    same = _expected(evaluation, model) is not None
    return {
        "model": model.name,
        "model_version": model.version,
        "dataset": evaluation.dataset.name,
        "images": len(answers),
        "correct": evaluation.correct,
        "accuracy": evaluation.accuracy,
        "expected_accuracy": model.test_accuracy if same else None,
        "confusion": evaluation.confusion.tolist(),
        "mistakes": [
            {"index": index, "label": int(labels[index]), "digit": int(answers[index])}
            for index in evaluation.mistakes.tolist()
        ],
        "mode": mode,
        "latency_ms": {f"p{p}": evaluation.percentile(p) * 1000 for p in PERCENTILES},
        "seconds": evaluation.seconds,
        "images_per_second": evaluation.images_per_second,
    }


def _print(evaluation: Evaluation, model: Model, console: Console) -> None:
    total = len(evaluation.answers)
    name = f"{model.name}/{model.version}"
    console.print(_confusion(evaluation), soft_wrap=True)
    console.print()
    console.print(
        f"{name} on {evaluation.dataset.name}: {evaluation.correct:,} of {total:,} right, "
        f"[bold]{evaluation.accuracy:.2%}[/bold]",
    )
    if _expected(evaluation, model) is None:
        console.print(
            f"It was trained on another data set ({model.dataset}), where its accuracy was "
            f"{model.test_accuracy:.2%}."
        )
    else:
        console.print(f"Measured at export: {model.test_accuracy:.2%}")
    console.print(f"{evaluation.images_per_second:,.0f} images/s in {evaluation.seconds:.2f} s")
    latencies = (f"p{p} {evaluation.percentile(p) * 1000:.2f} ms" for p in PERCENTILES)
    console.print(f"latency: {', '.join(latencies)}")


def _confusion(evaluation: Evaluation) -> Text:
    """Returns a table that keeps its columns in a narrow terminal too, where rich would cut."""
    text = Text("True digits in rows, answers in columns\n", no_wrap=True)
    text.append(" ").append("".join(f"{digit:6}" for digit in range(DIGITS)), "bold")
    for digit, row in enumerate(evaluation.confusion.tolist()):
        text.append(f"\n{digit}", "bold")
        for answer, count in enumerate(row):
            style = "green" if digit == answer else "red" if count else "dim"
            text.append(f"{count:6,}" if count else f"{'·':>6}", style)
    return text
