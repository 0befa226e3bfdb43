"""How accurate two processes are beside one at the same global batch: `make bench-training`.

    python -m bench.distributed

Both are started as anyone would start them, on one thread a process, seed by seed. The
two are as machines of their own to each other, so that they can share a GPU where there
is only one. What it finds goes to docs/results/distributed-<device>.json.
"""

import math
import os
import subprocess
import sys
from contextlib import ExitStack
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
    device_option,
    option,
    pick_device,
    recipe_option,
    results_option,
)

RUNS = Path("runs/bench/distributed")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=1", "--master-addr=127.0.0.1")


@click.command()
@arch_option
@recipe_option
@dataset_option
@device_option
@option("--seeds", type=click.IntRange(min=2), default=5, help="How many, from 0.")
@data_option
@results_option
def main(
    *,
    arch: str,
    recipe: str,
    dataset: str,
    device: str,
    seeds: int,
    data_folder: Path,
    results_folder: Path,
) -> None:
    """Train a recipe by one process and by two, with several seeds, and keep their accuracies."""
    name, kind = sources.prepare(dataset, data_folder), pick_device(device).type
    words = ["-m", "training", "train", f"--device={kind}", f"--arch={arch}", f"--recipe={recipe}"]
    words += [f"--dataset={name}", f"--data={data_folder}", f"--runs={RUNS}"]
    rows: dict[str, list[dict[str, float]]] = {"one": [], "two": []}
    for seed in range(seeds):
        for count, (who, found) in enumerate(rows.items(), start=1):
            run = f"{arch}-{recipe}-{kind}-{who}-{seed}"
            start([*words, f"--name={run}", f"--seed={seed}"], count)
            test = Checkpoint.load(RUNS / run).test
            accuracy = test.accuracy if test else math.nan
            found.append({"seed": seed, "test_accuracy": accuracy})
            click.echo(f"{who}, seed {seed}: {accuracy:.2%}")
    accuracies = {who: [row["test_accuracy"] for row in rows[who]] for who in rows}
    difference = [two - one for one, two in zip(*accuracies.values(), strict=True)]
    outcome: dict[str, Any] = {
        "arch": arch,
        "recipe": recipe,
        "settings": asdict(recipe_named(arch, recipe)),
        "dataset": name,
        "device": kind,
        "threads_per_process": 1,
        "difference": results.spread(difference),
    }
    for who, runs in rows.items():
        outcome[f"{who}_process" if who == "one" else f"{who}_processes"] = {
            "test_accuracy": results.spread(accuracies[who]),
            "runs": runs,
        }
    results.keep(results_folder / f"distributed-{kind}.json", outcome)
    click.echo(f"Two less one: {outcome['difference']['mean']:+.3%} (n={seeds})")


def start(words: list[str], processes: int) -> None:
    """Runs Python with these words to its end, in one process or in several."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [
                        sys.executable,
                        *(_torchrun(rank, processes) if processes > 1 else ()),
                        *words,
                    ],
                    # By its name each is a machine to NCCL, which would else not share a GPU.
                    env=os.environ | {"OMP_NUM_THREADS": "1", "NCCL_HOSTID": str(rank)},
                    stdout=subprocess.DEVNULL,
                )
            )
            for rank in range(processes)
        ]
    for process in started:
        if process.returncode:  # it has said why
            raise SystemExit(process.returncode)


def _torchrun(rank: int, machines: int) -> tuple[str, ...]:
    return (*TORCHRUN, f"--nnodes={machines}", f"--node-rank={rank}")


if __name__ == "__main__":
    main()
