"""Trains one model: a run is a story of epochs, each ending in a checkpoint."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training import distributed
from training.augment import augment
from training.calibration import calibrate
from training.checkpoint import Checkpoint, Epoch, Run, Score
from training.data import Dataset, Split, hold_out
from training.distillation import teacher_of
from training.errors import TrainingError
from training.graphs import Recorded
from training.models import ARCHITECTURES, channels_last
from training.optimization import WarmedAverage, make_optimizer, make_schedule
from training.precision import has_bfloat16

EVALUATION_BATCH = 1000


def train(  # noqa: PLR0913 - a run's parts are told apart by name
    run: Run,
    dataset: Dataset,
    folder: Path,
    *,
    git_commit: str,
    resume: bool,
    progress: Progress,
    on_epoch: Callable[[Checkpoint], None],
) -> Checkpoint:
    """Trains to the end, then calibrates the best weights and evaluates them on the test images.

    The test images are looked at this once.

    On one CPU, with the same number of processes and threads, the same run gives
    the same weights to the last bit, whether or not it was interrupted and resumed.
    Another number of processes may resume it.

    Args:
        run: what to train.
        dataset: its data, on the device to train on.
        folder: where the checkpoint goes, after each epoch.
        git_commit: the training code's, for the record.
        resume: go on from the folder's checkpoint instead of starting afresh.
        progress: shows how far it is.
        on_epoch: called with the checkpoint after each epoch.

    Returns:
        the final checkpoint, of which other processes than the first lack what it found.

    Raises:
        TrainingError: if the checkpoint to resume is missing, damaged, or of
            another run, or if the folder cannot be written.
    """
    rest, held_out = hold_out(dataset.train, run.recipe.validation)
    trainer = Trainer(run, rest)
    checkpoint = Checkpoint(run=run, git_commit=git_commit)
    if resume:
        checkpoint = distributed.from_first(_load, run, folder)
        trainer.load_state_dict(checkpoint.state)

    def end_epoch(number: int, started: float, train_score: Score) -> None:
        epoch = Epoch(
            epoch=number,
            learning_rate=trainer.learning_rate,
            train=train_score,
            validation=evaluate(trainer.candidate, held_out),
            seconds=time.perf_counter() - started,
        )
        checkpoint.add(epoch, trainer.candidate.state_dict(), trainer.state_dict())
        checkpoint.save(folder)
        on_epoch(checkpoint)

    def finish() -> None:
        if checkpoint.test is None:
            best_model = checkpoint.best_model().to(trainer.device)
            checkpoint.temperature = calibrate(best_model, held_out)
            checkpoint.best_weights = best_model.state_dict()
            checkpoint.test = evaluate(best_model, dataset.test)
            checkpoint.save(folder)

    done, steps = len(checkpoint.history), trainer.steps_per_epoch
    task = progress.add_task("training", total=run.recipe.epochs * steps, completed=done * steps)
    for number in range(done + 1, run.recipe.epochs + 1):
        started = time.perf_counter()
        train_score = trainer.train_epoch(lambda: progress.advance(task))
        distributed.from_first(end_epoch, number, started, train_score)
    distributed.from_first(finish)
    return checkpoint


def evaluate(model: nn.Module, split: Split) -> Score:
    """Returns the model's score in evaluation mode: no dropout, batch norm's statistics fixed."""
    model.eval()
    loss, right = 0.0, 0
    with torch.inference_mode():
        for pixels, labels in split.batches(EVALUATION_BATCH):
            logits = model(pixels)
            loss += cross_entropy(logits, labels, reduction="sum").item()
            right += int((logits.argmax(1) == labels).sum())
    return Score(loss / len(split), right / len(split))


class Trainer:
    """A model on its way: all that changes from step to step.

    Seeds torch's global generators, from which initial weights, order,
    augmentation and dropout are drawn.

    Args:
        run: what to train.
        images: the training images, on the device to train on.
    """

    def __init__(self, run: Run, images: Split) -> None:
        self.recipe = run.recipe
        self.images = images
        self.device = images.labels.device
        self.steps_per_epoch = -(-len(images) // run.recipe.batch_size)
        torch.backends.cudnn.benchmark = True  # shapes stay the same from step to step
        torch.manual_seed(run.seed)
        self.model = channels_last(ARCHITECTURES[run.arch]().to(self.device))
        self.teacher = teacher_of(run, self.device)
        self.bfloat16 = run.recipe.precision == "bfloat16" and has_bfloat16(self.device)
        self.optimizer = make_optimizer(self.model.parameters(), run.recipe)
        self.schedule = make_schedule(self.optimizer, run.recipe, self.steps_per_epoch)
        self.average = WarmedAverage(self.model, run.recipe.ema_decay)
        self.parallel = distributed.data_parallel(self.model)
        self.loss_sum = torch.zeros((), device=self.device)
        self.right = torch.zeros((), dtype=torch.int64, device=self.device)
        alone_on_cuda = self.device.type == "cuda" and distributed.processes() == 1
        self.learn = Recorded(self._learn) if alone_on_cuda else self._learn

    @property
    def candidate(self) -> nn.Module:
        """The model that would be kept: the moving average of the weights, where there is one."""
        return self.average.module if self.recipe.ema_decay else self.model

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def train_epoch(self, on_step: Callable[[], None]) -> Score:
        """Takes one pass over the training images, in training mode.

        Each process takes its part of every batch, from an order that is the same for all.

        Args:
            on_step: called after each step.
        """
        self.model.train()
        self.loss_sum.zero_()
        self.right.zero_()
        batches = self.images.batches(self.recipe.batch_size, shuffle=True)
        with distributed.own_randomness(self.device):
            for pixels, labels in batches:
                self.learn(pixels, labels)
                self.optimizer.step()
                self.schedule.step()
                if self.recipe.ema_decay:
                    self.average.update_parameters(self.model)
                on_step()
        loss = distributed.total(self.loss_sum).item() / distributed.processes()
        right = distributed.total(self.right).item()
        return Score(loss / len(self.images), right / len(self.images))

    def _learn(self, pixels: Tensor, labels: Tensor) -> None:
        """Finds the gradients of a batch, and counts it in.

        Args:
            pixels: [n, 1, 28, 28] in [0, 1].
            labels: int64 [n].
        """
        part, weight = distributed.share(len(labels))
        augmented = augment(pixels[part], self.recipe)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.parallel(augmented).float()
            wanted = self.teacher.answer(augmented) if self.teacher else None
        loss = cross_entropy(logits, labels[part], label_smoothing=self.recipe.label_smoothing)
        if self.teacher and wanted is not None:
            loss = self.teacher.loss(logits, wanted, of_labels=loss)
        self.optimizer.zero_grad(set_to_none=False)  # they stay where a recorded step puts them
        (weight * loss).backward()
        own = cross_entropy(logits.detach(), labels[part])  # of whatever is minimised
        self.loss_sum += weight * own * len(labels)
        self.right += bool(weight) * (logits.argmax(1) == labels[part]).sum()

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that the next step depends on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was called."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.average.load_state_dict(state["average"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"])


def _load(wanted: Run, folder: Path) -> Checkpoint:
    """Returns the checkpoint in `folder`; raises a TrainingError unless it is the wanted run's."""
    checkpoint = Checkpoint.load(folder)
    there = checkpoint.run
    before, now = (asdict(run) | asdict(run.recipe) | {"recipe": None} for run in (there, wanted))
    differing = [f"{key} {before[key]}, not {now[key]}" for key in now if before[key] != now[key]]
    if differing:
        raise TrainingError(
            f"{folder} is a run with {'; '.join(differing)}: resume it with the choices that it "
            f"was started with, or delete {folder} to train afresh."
        )
    return checkpoint
