"""The command line: data, train, export, study, summary."""

import math
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click
import torch
from rich.console import Console
from rich.progress import Progress

from training import results, sources
from training import study as studies
from training import summary as summaries
from training.checkpoint import Checkpoint, Run
from training.config import RECIPES, choices, recipe_named
from training.data import load
from training.errors import TrainingError
from training.export import export as export_run
from training.models import ARCHITECTURES
from training.provenance import git_commit
from training.history import History
from training.train import train as train_run

INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended
CPU = torch.device("cpu")

Command = TypeVar("Command", bound=Callable[..., Any])


def option(*names: str, **settings: Any) -> Callable[[Command], Command]:
    """Returns click's option, its default shown in the help."""
    return click.option(*names, **{"show_default": True} | settings)


def folder_option(name: str, default: str, meaning: str) -> Callable[[Command], Command]:
    """Returns an option that names a folder."""
    kind = click.Path(path_type=Path)
    return option(f"--{name}", f"{name}_folder", type=kind, default=default, help=meaning)


def recipe_options(command: Command) -> Command:
    """Adds a flag for each of the recipe's choices."""
    for name, (kind, meaning) in reversed(choices().items()):
        flag = "--" + name.replace("_", "-")
        command = option(flag, type=kind, show_default="the recipe's", help=meaning)(command)
    return command


arch_option = option(
    "--arch", type=click.Choice(list(ARCHITECTURES)), default="digitnet", help="Architecture."
)
dataset_option = option(
    "--dataset",
    type=click.Choice(["auto", "mnist", "digits"]),
    default="auto",
    help="auto is MNIST, or the embedded digits where MNIST cannot be had.",
)
recipe_option = option(
    "--recipe",
    type=click.Choice(list(dict.fromkeys(name for named in RECIPES.values() for name in named))),
    default="default",
    help="One of the architecture's recipes.",
)
device_option = option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="auto is CUDA where there is one.",
)
name_option = option("--name", show_default="the architecture", help="The run's folder in --runs.")
data_option = folder_option("data", "data", "Folder of all data sets.")
runs_option = folder_option("runs", "runs", "Folder of all runs.")


@click.group(chain=True)
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
    name = sources.prepare(dataset, data_folder)
    found = load(name, data_folder, CPU)
    click.echo(
        f"{name} is in {sources.folder_of(name, data_folder)}: {len(found.train):,} training and "
        f"{len(found.test):,} test images, SHA-256 {found.sha256}"
    )


@main.command()
@arch_option
@recipe_option
@dataset_option
@device_option
@option("--seed", type=int, default=4, help="Of all that is random.")
@name_option
@option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@data_option
@runs_option
@recipe_options
def train(  # noqa: PLR0913 - one argument per flag
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
    """Train a model by one of its architecture's recipes, but for what is chosen here."""
    chosen = {key: value for key, value in given.items() if value is not None}
    settings = replace(recipe_named(arch, recipe), **chosen)
    chosen_device = pick_device(device)
    history = History(runs_folder / (name or arch), chosen_device)
    try:
        found = load(sources.prepare(dataset, data_folder), data_folder, chosen_device)
        run = Run(arch, found.name, found.sha256, settings, seed)
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
        history.finish(done)
    except KeyboardInterrupt:
        words = [word for word in sys.orig_argv if word != "--resume"]
        words.insert(words.index("train") + 1, "--resume")
        command = shlex.join(words)
        kept = f"go on with: {command}" if history.epochs or resume else "no epoch was over yet."
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
@folder_option("models", "models", "Folder of all models.")
@data_option
@runs_option
def export(  # noqa: PLR0913 - one argument per flag
    *,
    arch: str,
    name: str | None,
    version: int | None,
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
            progress=progress,
        )
    click.echo(
        f"{target}: on {parity.images:,} test images at each of several batch sizes, the largest "
        f"logit difference between PyTorch and onnxruntime is {parity.max_abs_logit_diff:.1e}, "
        "and every digit is the same."
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
@recipe_option
@dataset_option
@device_option
@option("--seeds", type=click.IntRange(min=1), default=5, help="How many, from 0.")
@option("--jobs", type=click.IntRange(min=1), default=1, help="Runs at a time.")
@folder_option("results", "docs/results", "Folder of what experiments found.")
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
    outcome = studies.summary(recipe, done)
    results.keep(results_folder / f"{arch}-{recipe}.json", outcome)
    accuracy = outcome["test_accuracy"]
    click.echo(
        f"{arch}, {recipe}: {accuracy['mean']:.3%} of the test images, standard error "
        f"{accuracy['standard_error'] or math.nan:.3%} (n={accuracy['n']}). Seed "
        f"{outcome['chosen']} is the best on its validation images: "
        f"export --arch {arch} --name {arch}-{recipe}-{outcome['chosen']}"
    )


@main.command()
@arch_option
def summary(arch: str) -> None:
    """Show an architecture layer by layer, and how each output's side comes about."""
    statistics = summaries.layers(arch)
    click.echo(statistics)
    click.echo("\n".join(summaries.arithmetic(statistics)))


def pick_device(choice: str) -> torch.device:
    """Returns the device for "auto", "cpu" or "cuda".

    Raises:
        TrainingError: if CUDA is asked for where there is none.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise TrainingError("PyTorch finds no CUDA device here: use --device cpu, or auto.")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def progress_bars(console: Console) -> Progress:
    """Returns progress bars for a terminal, and silence elsewhere."""
    return Progress(
        *Progress.get_default_columns(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
