"""A recipe over several seeds: what it is worth, and not what its luckiest run was."""

import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from training.checkpoint import FILE_NAME, Checkpoint, Run
from training.data import load
from training.experiments.results import spread
from training.history import History
from training.models import ARCHITECTURES, parameter_count
from training.provenance import git_commit
from training.train import train


def study(
    runs: Sequence[tuple[Run, Path]], data: Path, device: torch.device, *, jobs: int
) -> list[Checkpoint]:
    """Trains each run to its end, several at a time; what is done already is not done again.

    Args:
        runs: what to train, and the folder that each goes to.
        data: the folder of all data sets.
        device: what to train on.
        jobs: how many at a time; they share this process's threads.
    """
    # A forked process cannot use CUDA, nor trust torch's threads.
    with ProcessPoolExecutor(
        jobs, get_context("spawn"), initializer=_prepare, initargs=(threads(jobs),)
    ) as pool:
        pending = [pool.submit(_finish, run, folder, data, device) for run, folder in runs]
        try:
            return [one.result() for one in pending]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def threads(jobs: int) -> int:
    """Returns how many threads each of so many runs at a time gets."""
    return max(1, torch.get_num_threads() // jobs)


def summary(recipe: str, checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """Returns what a study found, for `results.keep`.

    Its "test_accuracy" has mean, standard deviation, standard error of the
    mean, and n; "chosen" is the seed that `choose` would export.

    Args:
        recipe: its name.
        checkpoints: of its runs, which differ by nothing but their seeds.
    """
    run = checkpoints[0].run
    tests = [checkpoint.test for checkpoint in checkpoints]
    return {
        "arch": run.arch,
        "recipe": recipe,
        "parameters": parameter_count(ARCHITECTURES[run.arch]()),
        "dataset": run.dataset,
        "dataset_sha256": run.dataset_sha256,
        "teacher_sha256": run.teacher_sha256,
        "settings": asdict(run.recipe),
        "test_accuracy": spread([test.accuracy for test in tests if test]),
        "chosen": choose(checkpoints).run.seed,
        "runs": [_row(checkpoint) for checkpoint in checkpoints],
    }


def choose(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """Returns the run that did best on its validation images; the test images have no say."""

    def rank(checkpoint: Checkpoint) -> tuple[float, float]:
        best = checkpoint.history[checkpoint.best_epoch - 1].validation
        return best.accuracy, -best.loss

    return max(checkpoints, key=rank)


def _prepare(threads: int) -> None:
    """Prepares a process of the pool, which is to end on Ctrl-C rather than take the next run."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(threads)


def _finish(run: Run, folder: Path, data: Path, device: torch.device) -> Checkpoint:
    """Trains a run to its end, going on from where it was left."""
    history = History(folder, device)
    done = train(
        run,
        load(run.dataset, data, device),
        folder,
        git_commit=git_commit(),
        resume=(folder / FILE_NAME).exists(),
        progress=Progress(disable=True),
        on_epoch=history.add,
    )
    history.finish(done)
    # Each tensor that goes to another process takes an open file there.
    return replace(done, best_weights={}, state={})


def _row(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns a run's outcome and its curves."""
    history, test = checkpoint.history, checkpoint.test
    best = history[checkpoint.best_epoch - 1]
    return {
        "seed": checkpoint.run.seed,
        "git_commit": checkpoint.git_commit,
        "best_epoch": best.epoch,
        "validation_accuracy": best.validation.accuracy,
        "test_accuracy": test and test.accuracy,
        "test_loss": test and test.loss,
        "seconds": sum(epoch.seconds for epoch in history),
        "curves": {
            "train_loss": [epoch.train.loss for epoch in history],
            "train_accuracy": [epoch.train.accuracy for epoch in history],
            "validation_loss": [epoch.validation.loss for epoch in history],
            "validation_accuracy": [epoch.validation.accuracy for epoch in history],
        },
    }
