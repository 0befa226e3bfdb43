"""The command line's experiments: each keeps what it found."""

import math
from pathlib import Path

import click

from training import results, sources
from training import study as studies
from training.checkpoint import Run
from training.config import recipe_named
from training.data import load
from training.options import (
    CPU,
    arch_option,
    data_option,
    dataset_option,
    device_option,
    option,
    pick_device,
    recipe_option,
    results_option,
    runs_option,
)


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
