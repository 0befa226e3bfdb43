"""Training does what it says: reproducibly, resumably, and without peeking at the test set."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from torch import Tensor, nn

from training import config
from training.checkpoint import Checkpoint, Run
from training.data import Dataset, Split, load
from training.models import ARCHITECTURES
from training.sources import prepare
from training.train import Trainer, evaluate, train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains on one thread, here and in subprocesses: bits depend on how sums are shared out."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the embedded digits."""
    folder = tmp_path_factory.mktemp("data")
    prepare("digits", folder)
    return folder


@pytest.fixture(scope="module")
def digits(data_folder: Path) -> Dataset:
    """The embedded digits."""
    return load("digits", data_folder, CPU)


def a_run(digits: Dataset, arch: str = "digitnet", *, seed: int = 0, epochs: int = 3) -> Run:
    """Returns a run of `arch` on the embedded digits."""
    recipe = replace(config.RECIPES[arch]["default"], epochs=epochs)
    return Run(arch, digits.name, digits.sha256, recipe, seed)


class StopError(Exception):
    """Ends a run from its own callback."""


def go(
    run: Run, dataset: Dataset, folder: Path, *, resume: bool = False, stop_after: int | None = None
) -> Checkpoint:
    """Trains `run`; raises StopError once epoch `stop_after` is over."""

    def on_epoch(checkpoint: Checkpoint) -> None:
        if len(checkpoint.history) == stop_after:
            raise StopError

    return train(
        run,
        dataset,
        folder,
        git_commit="unknown",
        resume=resume,
        progress=Progress(disable=True),
        on_epoch=on_epoch,
    )


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Returns whether two models' states are the same to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("arch", ["digitnet", "dropout"])
def test_same_seed_same_weights(arch: str, digits: Dataset, tmp_path: Path) -> None:
    """The same seed gives the same weights to the last bit, another seed gives others."""
    first, second, other = (
        go(a_run(digits, arch, seed=seed, epochs=1), digits, tmp_path).best_weights
        for seed in (1, 1, 2)
    )
    assert equal(first, second)
    assert not equal(first, other)


@pytest.mark.parametrize("arch", ["digitnet", "dropout"])
def test_resumed_run_ends_as_if_uninterrupted(arch: str, digits: Dataset, tmp_path: Path) -> None:
    """Stopped after its first epoch and resumed, a run ends with the same bits and history."""
    run = a_run(digits, arch)
    whole = go(run, digits, tmp_path / "whole")
    with pytest.raises(StopError):
        go(run, digits, tmp_path / "parts", stop_after=1)
    resumed = go(run, digits, tmp_path / "parts", resume=True)
    assert equal(resumed.best_weights, whole.best_weights)
    assert equal(resumed.state["model"], whole.state["model"])
    assert resumed.test == whole.test
    assert [replace(epoch, seconds=0) for epoch in resumed.history] == [
        replace(epoch, seconds=0) for epoch in whole.history
    ]


class Watched(Split):
    """A split that counts how often its images are gone through."""

    looks = 0

    def batches(self, size: int, *, shuffle: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Counts, and yields what it should."""
        Watched.looks += 1
        return super().batches(size, shuffle=shuffle)


def test_test_set_is_looked_at_once(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a whole run of several epochs the test images are gone through once, at the end."""
    monkeypatch.setattr(Watched, "looks", 0)
    watched = replace(digits, test=Watched(digits.test.images, digits.test.labels))
    run = a_run(digits, "tiny")
    with pytest.raises(StopError):
        go(run, watched, tmp_path, stop_after=3)
    assert Watched.looks == 0
    done = go(run, watched, tmp_path, resume=True)
    assert Watched.looks == 1
    assert done.test == evaluate(done.best_model(), digits.test)


def test_best_epoch_is_chosen_on_validation(digits: Dataset, tmp_path: Path) -> None:
    """The weights that are kept belong to an epoch that no other beats on the images held out."""
    done = go(a_run(digits, "tiny", epochs=6), digits, tmp_path)
    accuracies = [epoch.validation.accuracy for epoch in done.history]
    assert accuracies[done.best_epoch - 1] == max(accuracies)


def test_a_worse_epoch_does_not_replace_the_best(digits: Dataset, tmp_path: Path) -> None:
    """After an epoch that does worse on the images held out, the weights before it are kept."""
    run = a_run(digits, "tiny", epochs=1)
    done = go(run, digits, tmp_path)
    best = {name: value.clone() for name, value in done.best_weights.items()}
    [good] = done.history
    bad = replace(good, epoch=2, validation=replace(good.validation, accuracy=0.0))
    done.add(bad, {name: value + 1 for name, value in best.items()}, {})
    assert done.best_epoch == 1
    assert equal(done.best_weights, best)


def test_a_run_that_monitors_nothing_keeps_its_last_epoch(digits: Dataset, tmp_path: Path) -> None:
    """However the last epoch does on the images held out, its weights are kept."""
    run = a_run(digits, "tiny", epochs=1)
    run = replace(run, recipe=replace(run.recipe, monitor="none"))
    done = go(run, digits, tmp_path)
    [good] = done.history
    bad = replace(good, epoch=2, validation=replace(good.validation, accuracy=0.0))
    worse = {name: value + 1 for name, value in done.best_weights.items()}
    done.add(bad, worse, {})
    assert done.best_epoch == 2
    assert equal(done.best_weights, worse)


@dataclass
class Mode:
    """What a model's forward hook saw."""

    training: set[bool]


def watch_mode(model: nn.Module) -> Mode:
    """Notes the mode in which each of the model's layers is called."""
    mode = Mode(set())
    for layer in model.modules():
        layer.register_forward_hook(lambda layer, _in, _out: mode.training.add(layer.training))
    return mode


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_trains_in_training_mode(arch: str, digits: Dataset) -> None:
    """Every layer trains in training mode, also after an evaluation."""
    trainer = Trainer(a_run(digits, arch), digits.train.take(torch.arange(256)))
    evaluate(trainer.candidate, digits.test)
    mode = watch_mode(trainer.model)
    trainer.train_epoch(lambda: None)
    assert mode.training == {True}


@pytest.mark.parametrize(
    ("instruction", "kind"),
    [("avx2", torch.float32), ("avx512_bf16", torch.bfloat16), ("bf16", torch.bfloat16)],
)
def test_bfloat16_where_the_device_has_it(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch, instruction: str, kind: torch.dtype
) -> None:
    """A CPU without the instructions trains in float32, which is many times quicker there."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instruction: True})
    run = a_run(digits)
    assert run.recipe.precision == "bfloat16"
    trainer = Trainer(run, digits.train.take(torch.arange(8)))
    seen = set()
    trainer.model[0].register_forward_hook(lambda _layer, _in, out: seen.add(out.dtype))
    trainer.train_epoch(lambda: None)
    assert seen == {kind}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_evaluates_in_evaluation_mode(arch: str, digits: Dataset) -> None:
    """Evaluation drops nothing out and leaves weights and batch norm's statistics alone."""
    model = ARCHITECTURES[arch]().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mode = watch_mode(model)
    assert evaluate(model, digits.test) == evaluate(model, digits.test)
    assert mode.training == {False}
    assert equal(model.state_dict(), before)


def test_evaluation_by_hand(digits: Dataset) -> None:
    """Loss is the mean cross-entropy, accuracy the fraction of digits that are right."""
    model = ARCHITECTURES["tiny"]().eval()
    score = evaluate(model, digits.test)
    with torch.inference_mode():
        logits = model(digits.test.images / 255)
    right = (logits.argmax(1) == digits.test.labels).double().mean().item()
    loss = nn.functional.cross_entropy(logits, digits.test.labels).item()
    assert score.accuracy == pytest.approx(right)
    assert score.loss == pytest.approx(loss, rel=1e-5)


def test_digitnet_learns_the_digits(digits: Dataset, tmp_path: Path) -> None:
    """Even on the few embedded digits, the default recipe in short makes a model that works."""
    done = go(a_run(digits, epochs=10), digits, tmp_path)
    assert done.test is not None
    assert done.test.accuracy > 0.95


def test_ctrl_c_and_resume(
    project: Path, digits: Dataset, data_folder: Path, tmp_path: Path
) -> None:
    """A real SIGINT ends with 130 and says how to go on; doing so gives the uninterrupted bits."""
    command = [sys.executable, "-m", "training", "train", "--arch", "tiny", "--dataset", "digits"]
    epochs = 8
    command += ["--data", str(data_folder), "--runs", str(tmp_path), "--epochs", str(epochs)]
    # Shells start what runs in the background with SIGINT ignored, and the child would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command,
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        next(line for line in process.stdout if line.split()[:1] == ["2"])
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.startswith("Interrupted; go on with: ")
    assert said.count("\n") == 1
    again = said.strip().removeprefix("Interrupted; go on with: ").split()
    after = command.index("train") + 1  # where it is train's own, whatever command follows
    assert again == [*command[:after], "--resume", *command[after:]]
    done = len(Checkpoint.load(tmp_path / "tiny").history)
    assert 2 <= done < epochs

    subprocess.run(again, cwd=project, check=True, capture_output=True)
    resumed = Checkpoint.load(tmp_path / "tiny")
    whole = go(resumed.run, digits, tmp_path / "whole")
    assert equal(resumed.best_weights, whole.best_weights)
    history = json.loads((tmp_path / "tiny/history.json").read_text())
    assert [epoch["epoch"] for epoch in history["epochs"]] == list(range(1, epochs + 1))
    assert (tmp_path / "tiny/history.png").read_bytes().startswith(b"\x89PNG")
