"""How a run went: on the screen, as JSON, and as a plot."""

import time
from dataclasses import asdict
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console

from training.checkpoint import Checkpoint, Run
from training.files import atomic, write_json
from training.precision import has_bfloat16

PLOT_EVERY = 10  # seconds: on a GPU a plot takes longer to draw than an epoch to train
HEADER = "epoch  train loss  accuracy  validation loss  accuracy  learning rate  seconds"


class History:
    """Follows a run: a table on the screen, `history.json` and `history.png` in its folder.

    Args:
        folder: the run's folder.
        device: what it trains on.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.epochs = 0  # that were reported
        self._next_plot = 0.0
        self.console = Console(highlight=False)

    def start(self, run: Run) -> None:
        """Prints what is about to be trained, and the table's head."""
        self.console.print(f"{run.arch} on {run.dataset}, {self.device}, seed {run.seed}")
        if run.recipe.teacher and not run.teacher_sha256:
            self.console.print(f"{run.recipe.teacher} learned other data: going on without it.")
        if run.recipe.precision == "bfloat16" and not has_bfloat16(self.device):
            self.console.print("This device has no bfloat16: training in float32.")
        self.console.print(f"[bold]{HEADER}[/]")

    def add(self, checkpoint: Checkpoint) -> None:
        """Prints the last epoch as a row of the table, and writes the history anew.

        The plot follows every few seconds.

        Raises:
            TrainingError: if the history cannot be written.
        """
        self.epochs += 1
        epoch = checkpoint.history[-1]
        self.console.print(
            f"{epoch.epoch:5}  {epoch.train.loss:10.4f}  {epoch.train.accuracy:8.2%}  "
            f"{epoch.validation.loss:15.4f}  {epoch.validation.accuracy:8.2%}  "
            f"{epoch.learning_rate:13.2e}  {epoch.seconds:7.1f}"
        )
        self._write(checkpoint)
        if time.monotonic() >= self._next_plot:
            self._plot(checkpoint)
            self._next_plot = time.monotonic() + PLOT_EVERY

    def finish(self, checkpoint: Checkpoint) -> None:
        """Prints how the epoch that is kept did on the test images, and adds that to the history.

        Raises:
            TrainingError: if the history cannot be written.
        """
        self._write(checkpoint)
        self._plot(checkpoint)
        if checkpoint.test:
            self.console.print(
                f"Epoch {checkpoint.best_epoch} is kept; on the test images it has loss "
                f"{checkpoint.test.loss:.4f} and accuracy {checkpoint.test.accuracy:.2%}.",
                soft_wrap=True,
            )

    def _write(self, checkpoint: Checkpoint) -> None:
        history = asdict(checkpoint.run) | {
            "git_commit": checkpoint.git_commit,
            "torch_version": torch.__version__,
            "device": str(self.device),
            "epochs": [asdict(epoch) for epoch in checkpoint.history],
            "seconds": sum(epoch.seconds for epoch in checkpoint.history),
            "best_epoch": checkpoint.best_epoch,
            "temperature": checkpoint.temperature,
            "test": checkpoint.test and asdict(checkpoint.test),
        }
        write_json(self.folder / "history.json", history)

    def _plot(self, checkpoint: Checkpoint) -> None:
        with atomic(self.folder / "history.png") as temporary:
            plot(checkpoint).savefig(temporary)


def plot(checkpoint: Checkpoint) -> Figure:
    """Draws loss and error rate over the epochs, with the one that is kept marked."""
    history = checkpoint.history
    numbers = [epoch.epoch for epoch in history]
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(f"{checkpoint.run.arch} on {checkpoint.run.dataset}")
    loss, error = figure.subplots(1, 2)
    for label in ("train", "validation"):
        scores = [getattr(epoch, label) for epoch in history]
        loss.plot(numbers, [score.loss for score in scores], marker=".", label=label)
        error.plot(numbers, [100 * (1 - s.accuracy) for s in scores], marker=".", label=label)
    loss.set(xlabel="epoch", ylabel="loss (nats)")
    error.set(xlabel="epoch", ylabel="error (%)")
    for axes in (loss, error):
        axes.axvline(checkpoint.best_epoch, color="grey", linestyle=":", label="kept")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
    loss.legend()
    return figure
