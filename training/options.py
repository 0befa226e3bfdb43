"""The command line's options that several commands share, and what they stand for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import torch
from rich.console import Console
from rich.progress import Progress

from training.config import RECIPES, choices
from training.errors import TrainingError
from training.models import ARCHITECTURES

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
jobs_option = option("--jobs", type=click.IntRange(min=1), default=1, help="Runs at a time.")
name_option = option("--name", show_default="the architecture", help="The run's folder in --runs.")
data_option = folder_option("data", "data", "Folder of all data sets.")
runs_option = folder_option("runs", "runs", "Folder of all runs.")
models_option = folder_option("models", "models", "Folder of all models.")
results_option = folder_option("results", "docs/results", "Folder of what experiments found.")
docs_option = folder_option("docs", "docs", "Folder of the report.")


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
