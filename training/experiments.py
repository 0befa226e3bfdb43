"""The command line's experiments: each keeps what it found."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import onnx
from rich.console import Console

from training import latency, results, robustness, sources
from training import study as studies
from training.checkpoint import Run
from training.config import recipe_named
from training.data import load
from training.errors import TrainingError
from training.export import MODEL_FILE, newest
from training.files import atomic
from training.options import (
    CPU,
    arch_option,
    data_option,
    dataset_option,
    device_option,
    folder_option,
    models_option,
    option,
    pick_device,
    progress_bars,
    recipe_option,
    results_option,
    runs_option,
)
from training.quantization import SUFFIX
from training.robustness_plots import plot_distortions, plot_reliability

# What a model and its int8 variant have in common.
RUN_FACTS = ("dataset", "dataset_sha256", "recipe", "seed", "git_commit")


@click.command()
@arch_option
@recipe_option
@dataset_option
@device_option
@option("--seeds", type=click.IntRange(min=1), default=5, help="How many, from 0.")
@option("--jobs", type=click.IntRange(min=1), default=1, help="Runs at a time.")
@results_option
@data_option
@runs_option
def study(  # noqa: PLR0913 - one argument per flag
    *,
    arch: str,
    recipe: str,
    dataset: str,
    device: str,
    seeds: int,
    jobs: int,
    results_folder: Path,
    data_folder: Path,
    runs_folder: Path,
) -> None:
    """Train a recipe with several seeds, and keep what they found.

    Runs that are finished already are taken as they are.
    """
    settings = recipe_named(arch, recipe)
    found = load(sources.prepare(dataset, data_folder), data_folder, CPU)
    runs = [
        (
            Run(arch, found.name, found.sha256, settings, seed),
            runs_folder / f"{arch}-{recipe}-{seed}",
        )
        for seed in range(seeds)
    ]
    done = studies.study(runs, data_folder, pick_device(device), jobs=jobs)
    outcome = studies.summary(recipe, done) | {"threads_per_run": studies.threads(jobs)}
    results.keep(results_folder / f"{arch}-{recipe}.json", outcome)
    accuracy = outcome["test_accuracy"]
    click.echo(
        f"{arch}, {recipe}: {accuracy['mean']:.3%} of the test images, standard error "
        f"{accuracy['standard_error'] or math.nan:.3%} (n={accuracy['n']}). Seed "
        f"{outcome['chosen']} is the best on its validation images: "
        f"export --arch {arch} --name {arch}-{recipe}-{outcome['chosen']}"
    )


@click.command()
@arch_option
@models_option
@results_option
def quantization(*, arch: str, models_folder: Path, results_folder: Path) -> None:
    """Compare a model with its int8 variant, the newest versions, by turns on one thread.

    Both have to be exported first.
    """
    folders = {"float": models_folder / arch, "int8": models_folder / (arch + SUFFIX)}
    files = {kind: folder / str(newest(folder)) / MODEL_FILE for kind, folder in folders.items()}
    if missing := [file for file in files.values() if not file.exists()]:
        raise TrainingError(
            f"{missing[0].parents[1]} holds no version: run export --arch {arch}, "
            "with and without --quantize."
        )
    contents = {kind: file.read_bytes() for kind, file in files.items()}
    facts = {kind: _facts(content) for kind, content in contents.items()}
    if any(facts["float"][key] != facts["int8"][key] for key in RUN_FACTS):
        raise TrainingError(
            f"{files['float'].parent} and {files['int8'].parent} are not of the same run: "
            f"run export --arch {arch}, with and without --quantize."
        )
    speeds = latency.measure(contents)
    found: dict[str, dict[str, Any]] = {
        kind: {
            "version": int(files[kind].parent.name),
            "bytes": len(contents[kind]),
            "test_accuracy": float(facts[kind]["test_accuracy"]),
        }
        | asdict(speeds[kind])
        for kind in files
    }
    outcome = {"arch": arch, "dataset": facts["float"]["dataset"], "rounds": latency.ROUNDS}
    results.keep(results_folder / f"quantization-{arch}.json", outcome | found)
    for kind, one in found.items():
        click.echo(
            f"{arch}, {kind}: {one['bytes']:,} bytes, {one['p50_us']['median']:.1f} µs for one "
            f"image, {one['images_per_second']['median']:,.0f} images/s in batches of "
            f"{latency.BATCH}, {one['test_accuracy']:.2%} of the test images right."
        )


@click.command("robustness")
@click.argument(
    "versions",
    metavar="FOLDER...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@results_option
@folder_option("plots", "docs/models", "Folder of the models' plots.")
@data_option
def distorted(
    *, versions: tuple[Path, ...], results_folder: Path, plots_folder: Path, data_folder: Path
) -> None:
    """Ask exported models, such as models/digitnet/1, about distorted test images.

    Keeps accuracy at every strength, and how far confidence is from accuracy.
    """
    console = Console(highlight=False)
    for version in versions:
        session, facts = robustness.open_version(version)
        dataset = load(sources.prepare(facts["dataset"], data_folder), data_folder, CPU)
        with progress_bars(console) as progress:
            found = robustness.measure(session, dataset.test, progress)
        name = version.resolve().parent.name
        source = {"model": name, "version": version.name, "dataset": dataset.name}
        results.keep(results_folder / f"robustness-{name}.json", source | found)
        for subject, plot in (("robustness", plot_distortions), ("reliability", plot_reliability)):
            with atomic(plots_folder / f"{name}-{subject}.png") as temporary:
                plot(name, found).savefig(temporary)
        console.print(robustness.table(name, found))


def _facts(onnx_file: bytes) -> dict[str, str]:
    """Returns an ONNX file's metadata_props."""
    props = onnx.load_from_string(onnx_file).metadata_props
    return {entry.key: entry.value for entry in props}
