"""The command line's experiments: each keeps what it found."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from training import sources
from training.checkpoint import Run
from training.config import recipe_named
from training.data import load
from training.distillation import teacher_sha256
from training.errors import TrainingError
from training.experiments import latency, results, robustness
from training.experiments import study as studies
from training.experiments.examine import examine as examine_version
from training.experiments.reproduce import reproduce as reproduce_all
from training.export import MODEL_FILE, identify, newest
from training.options import (
    CPU,
    arch_option,
    data_option,
    dataset_option,
    device_option,
    folder_option,
    jobs_option,
    models_option,
    option,
    pick_device,
    progress_bars,
    recipe_option,
    results_option,
    runs_option,
)
from training.parity import open_session
from training.quantization import SUFFIX

# What a model and its int8 variant have in common.
RUN_FACTS = ("dataset", "dataset_sha256", "recipe", "seed", "git_commit")


@click.command()
@arch_option
@recipe_option
@dataset_option
@device_option
@option("--seeds", type=click.IntRange(min=1), default=5, help="How many, from 0.")
@jobs_option
@results_option
@data_option
@runs_option
def study(
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
    teacher = teacher_sha256(settings.teacher, found.sha256)
    runs = [
        (
            Run(arch, found.name, found.sha256, settings, seed, teacher),
            runs_folder / f"{arch}-{recipe}-{seed}",
        )
        for seed in range(seeds)
    ]
    done = studies.study(runs, data_folder, pick_device(device), jobs=jobs)
    outcome = studies.summary(recipe, done) | {"threads_per_run": studies.threads(jobs)}
    results.keep(results_folder / f"{arch}-{recipe}.json", outcome)
    accuracy = outcome["test_accuracy"]
    error = f", standard error {accuracy['standard_error']:.3%}" if accuracy["n"] > 1 else ""
    click.echo(
        f"{arch}, {recipe}: {accuracy['mean']:.3%} of the test images{error} (n={accuracy['n']}). "
        f"Seed {outcome['chosen']} is the best on its validation images: "
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
    versions = {kind: identify(file.parent) for kind, file in files.items()}
    facts = {kind: version["metadata"] for kind, version in versions.items()}
    if any(facts["float"][key] != facts["int8"][key] for key in RUN_FACTS):
        raise TrainingError(
            f"{files['float'].parent} and {files['int8'].parent} are not of the same run: "
            f"run export --arch {arch}, with and without --quantize."
        )
    speeds = latency.measure(contents)
    found: dict[str, dict[str, Any]] = {
        kind: {
            **{key: version[key] for key in ("version", "sha256", "bytes")},
            "test_accuracy": float(facts[kind]["test_accuracy"]),
        }
        | asdict(speeds[kind])
        for kind, version in versions.items()
    }
    outcome = {"arch": arch, "dataset": facts["float"]["dataset"], "rounds": latency.ROUNDS}
    results.keep(results_folder / f"quantization-{arch}.json", outcome | found)
    for kind, one in found.items():
        click.echo(
            f"{arch}, {kind}: {one['bytes']:,} bytes, {one['p50_us']['median']:.1f} µs for one "
            f"image, {one['images_per_second']['median']:,.0f} images/s in batches of "
            f"{latency.BATCH}, {one['test_accuracy']:.2%} of the test images right."
        )


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@results_option
@data_option
def examine(folders: tuple[Path, ...], results_folder: Path, data_folder: Path) -> None:
    """Ask exported versions, FOLDERS such as models/digitnet/1, about all test images.

    Keeps what each gets right and wrong, which images it finds hardest, how
    large and how quick it is.
    """
    found_in = {}
    for folder in folders:
        dataset = sources.prepare(identify(folder)["metadata"]["dataset"], data_folder)
        found_in[folder] = examine_version(folder, load(dataset, data_folder, CPU))
    speeds = latency.measure(
        {str(folder): (folder / MODEL_FILE).read_bytes() for folder in folders}
    )
    for folder, examined in found_in.items():
        speed = speeds[str(folder)]
        found = examined | {"latency": asdict(speed)}
        results.keep(results_folder / f"examined-{found['name']}.json", found)
        click.echo(
            f"{folder}: {found['correct']:,} of {found['images']:,} test images right, "
            f"{found['bytes']:,} bytes, {speed.p50_us.median:.1f} µs for one image, "
            f"{speed.images_per_second.median:,.0f} images/s in batches of {latency.BATCH}"
        )


@click.command("robustness")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@results_option
@data_option
def distorted(*, folders: tuple[Path, ...], results_folder: Path, data_folder: Path) -> None:
    """Ask exported versions, FOLDERS such as models/digitnet/1, about distorted test images.

    Keeps accuracy at every strength, and how far confidence is from accuracy.
    """
    console = Console(highlight=False)
    for folder in folders:
        version = identify(folder)
        session = open_session((folder / MODEL_FILE).read_bytes())
        name = sources.prepare(version["metadata"]["dataset"], data_folder)
        dataset = load(name, data_folder, CPU)
        with progress_bars(console) as progress:
            found = robustness.measure(session, dataset.test, progress)
        source = {key: version[key] for key in ("name", "version", "sha256")}
        results.keep(
            results_folder / f"robustness-{version['name']}.json",
            source | {"dataset": dataset.name} | found,
        )
        console.print(robustness.table(version["name"], found))


@click.command()
@option("--dataset", type=click.Choice(["mnist", "digits"]), default="mnist", help="Data set.")
@device_option
@jobs_option
@data_option
@folder_option("runs", "runs/reproduced/runs", "Gets the runs.")
@folder_option("models", "runs/reproduced/models", "Gets the versions.")
@folder_option("results", "runs/reproduced/docs/results", "Gets what experiments find.")
@folder_option("docs", "runs/reproduced/docs", "Gets the report.")
def reproduce(dataset: str, device: str, jobs: int, **folders: Path) -> None:
    """Train, export and measure anew all that the report is made from.

    What is done already is not done again. Nothing is served, and nothing that
    is committed is changed, unless --models, --results and --docs say so.
    """
    at = {name.removesuffix("_folder"): folder for name, folder in folders.items()}
    reproduce_all(at, dataset=dataset, device=device, jobs=jobs, say=click.echo)
