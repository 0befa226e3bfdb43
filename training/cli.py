"""The command line: data, train, export, summary, and the experiments."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from training import distributed, sources
from training import summary as summaries
from training.checkpoint import Checkpoint, Run
from training.config import recipe_named
from training.data import Dataset, load
from training.distillation import teacher_sha256
from training.errors import TrainingError
from training.experiments import cli as experiments
from training.export import export as export_run
from training.history import History
from training.options import (
    CPU,
    arch_option,
    data_option,
    dataset_option,
    device_option,
    docs_option,
    models_option,
    name_option,
    option,
    pick_device,
    progress_bars,
    recipe_option,
    recipe_options,
    results_option,
    runs_option,
)
from training.provenance import git_commit
from training.report.pages import report as write_report
from training.train import train as train_run

INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended


@click.group(cls=distributed.Commands, chain=True)
def main() -> None:
    """Train small MNIST networks and export them to ONNX.

    Commands can follow each other: train --arch tiny export --arch tiny.
    """


@main.command()
@dataset_option
@data_option
def data(dataset: str, data_folder: Path) -> None:
    """Bring a data set here, and say what it is.

    MNIST comes from the folder that the environment's MNIST_SOURCE names, or
    else from the network.
    """
    found = _bring(dataset, data_folder)
    click.echo(
        f"{found.name} is in {sources.folder_of(found.name, data_folder)}: "
        f"{len(found.train):,} training and {len(found.test):,} test images, "
        f"SHA-256 {found.sha256}"
    )


@main.command()
@arch_option
@recipe_option
@dataset_option
@device_option
@option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Of all that is random.")
@name_option
@option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@data_option
@runs_option
@recipe_options
def train(
    *,
    arch: str,
    recipe: str,
    dataset: str,
    device: str,
    seed: int,
    name: str | None,
    resume: bool,
    data_folder: Path,
    runs_folder: Path,
    **given: Any,
) -> None:
    """Train a model by one of its architecture's recipes, but for what is chosen here.

    On several GPUs or machines: torchrun --nproc-per-node 2 -m training train …
    """
    chosen = {key: value for key, value in given.items() if value is not None}
    settings = replace(recipe_named(arch, recipe), **chosen)
    chosen_device = pick_device(device)
    history = History(runs_folder / (name or arch), chosen_device)
    try:
        with distributed.group(chosen_device) as own_device:
            found = distributed.from_first(_bring, dataset, data_folder).to(own_device)
            teacher = distributed.from_first(teacher_sha256, settings.teacher, found.sha256)
            run = Run(arch, found.name, found.sha256, settings, seed, teacher)
            history.start(run)
            with progress_bars(history.console) as progress:
                done = train_run(
                    run,
                    found,
                    history.folder,
                    git_commit=git_commit(),
                    resume=resume,
                    progress=progress,
                    on_epoch=history.add,
                )
            distributed.from_first(history.finish, done)
    except KeyboardInterrupt:
        words = [word for word in sys.orig_argv if word != "--resume"]
        words.insert(words.index("train") + 1, "--resume")
        command = distributed.command_line(words)
        kept = f"go on with: {command}" if history.epochs or resume else "no epoch was over yet."
        if distributed.is_first():
            click.echo(f"Interrupted; {kept}", err=True)
        sys.exit(INTERRUPTED)


@main.command()
@arch_option
@name_option
@option(
    "--version",
    type=click.IntRange(min=1),
    show_default="the next free one",
    help="The new version's number.",
)
@option("--quantize", is_flag=True, help="In int8, as a model of its own: <arch>-int8.")
@models_option
@data_option
@runs_option
def export(
    *,
    arch: str,
    name: str | None,
    version: int | None,
    quantize: bool,
    models_folder: Path,
    data_folder: Path,
    runs_folder: Path,
) -> None:
    """Write a run's model as a new version, once onnxruntime is proved to answer as PyTorch."""
    run_folder = runs_folder / (name or arch)
    checkpoint = Checkpoint.load(run_folder)
    if checkpoint.run.arch != arch:
        raise TrainingError(f"{run_folder} holds a {checkpoint.run.arch}: say so with --arch.")
    dataset = sources.prepare(checkpoint.run.dataset, data_folder)
    console = Console()
    with progress_bars(console) as progress:
        target, parity = export_run(
            checkpoint,
            load(dataset, data_folder, CPU),
            models_folder,
            version=version,
            quantized=quantize,
            progress=progress,
        )
    outcome = (
        f"{parity.accuracy:.2%} of the digits are right" if quantize else "every digit is the same"
    )
    click.echo(
        f"{target}: on {parity.images:,} test images at each of several batch sizes, the largest "
        f"logit difference between PyTorch and onnxruntime is {parity.max_abs_logit_diff:.1e}, "
        f"and {outcome}."
    )
    if dataset != "mnist":
        click.secho(
            f"WARNING: {target} has never seen MNIST, and the newest version is the one that "
            f"answers: delete {target} to have an older one back.",
            fg="yellow",
            bold=True,
            err=True,
        )


@main.command()
@arch_option
def summary(arch: str) -> None:
    """Show an architecture layer by layer, and how each output's side comes about."""
    statistics = summaries.layers(arch)
    click.echo(statistics)
    click.echo("\n".join(summaries.arithmetic(statistics)))


@main.command()
@results_option
@models_option
@docs_option
def report(results_folder: Path, models_folder: Path, docs_folder: Path) -> None:
    """Write models.md, a card for each model, and their plots, from what is stored.

    The README beside the docs, where there is one, gets its table of models anew.
    """
    written = write_report(results_folder, models_folder, docs_folder)
    click.echo("Written: " + ", ".join(map(str, written)))


def _bring(choice: str, folder: Path) -> Dataset:
    """Returns the chosen data set, on the CPU, once it is in the folder."""
    return load(sources.prepare(choice, folder), folder, CPU)


for command in (
    experiments.study,
    experiments.quantization,
    experiments.examine,
    experiments.distorted,
    experiments.reproduce,
):
    main.add_command(command)
