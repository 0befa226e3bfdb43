"""The fast recipe beside the ten epochs of `light`, taking turns: `make bench-training`.

    python -m bench.training

What counts are the seconds from a run's first step to its last: order, augmentation,
forward and backward pass, optimizer and moving average. Data is on the device before,
evaluation comes after, and so does the look at the test images, by the last weights.
Each recipe has an epoch to warm up first. CPU and CUDA differ in nothing but
that CUDA is waited for before each look at the clock. What it finds goes to
docs/results/fast-<device>.json.
"""

import time
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import torch

from training import sources
from training.checkpoint import Run
from training.config import Recipe, recipe_named
from training.data import Dataset, hold_out, load
from training.experiments import results
from training.options import (
    data_option,
    dataset_option,
    device_option,
    option,
    pick_device,
    results_option,
)
from training.train import Trainer, evaluate

FAST, LIGHT = ("digitnet", "fast"), ("light", "default")


@click.command()
@device_option
@dataset_option
@option("--fast", type=click.IntRange(min=1), default=5, help="Runs of the fast recipe.")
@option("--light", type=click.IntRange(min=1), default=2, help="Runs of light's.")
@data_option
@results_option
def main(
    *, device: str, dataset: str, fast: int, light: int, data_folder: Path, results_folder: Path
) -> None:
    """Train both recipes with several seeds, and keep their seconds and accuracies."""
    chosen = pick_device(device)
    found = load(sources.prepare(dataset, data_folder), data_folder, chosen)
    for contender in (FAST, LIGHT):
        measure(found, contender[0], replace(recipe_named(*contender), epochs=1), seed=0)
    rows: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for seed in range(max(fast, light)):
        for contender, count in ((FAST, fast), (LIGHT, light)):
            if seed < count:
                row = measure(found, contender[0], recipe_named(*contender), seed)
                rows[contender].append(row)
                click.echo(
                    f"{contender[0]}, {contender[1]}, seed {seed}: {row['seconds']:.2f} s, "
                    f"{row['test_accuracy']:.2%}"
                )
    ours, theirs = (summary(*contender, rows[contender]) for contender in (FAST, LIGHT))
    ratio = ours["seconds"]["mean"] / theirs["seconds"]["mean"]
    results.keep(
        results_folder / f"fast-{chosen.type}.json",
        {
            "device": chosen.type,
            "threads": torch.get_num_threads(),
            "dataset": found.name,
            "dataset_sha256": found.sha256,
            "fast": ours,
            "light": theirs,
            "seconds_of_fast_over_light": ratio,
        },
    )
    click.echo(
        f"The fast recipe reaches {ours['test_accuracy']['mean']:.2%} in "
        f"{ours['seconds']['mean']:.2f} s, which is {ratio:.3f} of light's time."
    )


def measure(dataset: Dataset, arch: str, recipe: Recipe, seed: int) -> dict[str, float]:
    """Trains from start to end, and returns how long that took and what came of it."""
    images, _ = hold_out(dataset.train, recipe.validation)
    trainer = Trainer(Run(arch, dataset.name, dataset.sha256, recipe, seed), images)
    started = now(trainer.device)
    for _ in range(recipe.epochs):
        trainer.train_epoch(lambda: None)
    seconds = now(trainer.device) - started
    accuracy = evaluate(trainer.candidate, dataset.test).accuracy
    return {"seed": seed, "seconds": seconds, "test_accuracy": accuracy}


def now(device: torch.device) -> float:
    """Returns the time in seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def summary(arch: str, recipe: str, runs: list[dict[str, float]]) -> dict[str, Any]:
    """Returns a recipe's runs and what they come to."""
    return {
        "arch": arch,
        "recipe": recipe,
        "settings": asdict(recipe_named(arch, recipe)),
        "seconds": results.spread([run["seconds"] for run in runs]),
        "test_accuracy": results.spread([run["test_accuracy"] for run in runs]),
        "runs": runs,
    }


if __name__ == "__main__":
    main()
