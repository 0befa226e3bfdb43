"""How accurate two processes are beside one at the same global batch: `make bench-training`.

    python -m bench.distributed

Both are started as anyone would start them, on one thread a process, seed by seed. What
it finds goes to docs/results/distributed.json.
"""

import math
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from training import sources
from training.checkpoint import Checkpoint
from training.config import recipe_named
from training.experiments import results
from training.options import (
    arch_option,
    data_option,
    dataset_option,
    option,
    recipe_option,
    results_option,
)

RUNS = Path("runs/bench/distributed")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@click.command()
@arch_option
@recipe_option
@dataset_option
@option("--seeds", type=click.IntRange(min=2), default=5, help="How many, from 0.")
@data_option
@results_option
def main(
    *, arch: str, recipe: str, dataset: str, seeds: int, data_folder: Path, results_folder: Path
) -> None:
    """Train a recipe by one process and by two, with several seeds, and keep their accuracies."""
    name = sources.prepare(dataset, data_folder)
    words = ["-m", "training", "train", "--device=cpu", f"--arch={arch}", f"--recipe={recipe}"]
    words += [f"--dataset={name}", f"--data={data_folder}", f"--runs={RUNS}"]
    launchers: dict[str, tuple[str, ...]] = {"one": (), "two": TORCHRUN}
    rows: dict[str, list[dict[str, float]]] = {who: [] for who in launchers}
    for seed in range(seeds):
        for who, launcher in launchers.items():
            row = trained([*launcher, *words], f"{arch}-{recipe}-{who}-{seed}", seed)
            rows[who].append(row)
            click.echo(f"{who}, seed {seed}: {row['test_accuracy']:.2%}")
    accuracies = {who: [row["test_accuracy"] for row in rows[who]] for who in rows}
    difference = [two - one for one, two in zip(*accuracies.values(), strict=True)]
    outcome: dict[str, Any] = {
        "arch": arch,
        "recipe": recipe,
        "settings": asdict(recipe_named(arch, recipe)),
        "dataset": name,
        "threads_per_process": 1,
        "difference": results.spread(difference),
    }
    for who, runs in rows.items():
        outcome[f"{who}_process" if who == "one" else f"{who}_processes"] = {
            "test_accuracy": results.spread(accuracies[who]),
            "runs": runs,
        }
    results.keep(results_folder / "distributed.json", outcome)
    click.echo(f"Two less one: {outcome['difference']['mean']:+.3%} (n={seeds})")


def trained(words: list[str], name: str, seed: int) -> dict[str, float]:
    """Runs Python with these words and returns what the run came to."""
    process = subprocess.run(
        [sys.executable, *words, f"--name={name}", f"--seed={seed}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if process.returncode:  # it has said why
        raise SystemExit(process.returncode)
    test = Checkpoint.load(RUNS / name).test
    return {"seed": seed, "test_accuracy": test.accuracy if test else math.nan}


if __name__ == "__main__":
    main()
