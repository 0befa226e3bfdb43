"""Two processes train what one would, through a real torchrun, and fail as one would."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import until

from training.checkpoint import Checkpoint
from training.cli import main
from training.data import hold_out, load
from training.sources import prepare

EPOCHS = 8
# With batch norm, a moving average and augmentation, and yet quick.
RECIPE = ("--recipe=fast", f"--epochs={EPOCHS}")


@dataclass(frozen=True)
class Workplace:
    """Where commands are run, and where they find the embedded digits."""

    project: Path
    data: Path

    def training(self, runs: Path, *flags: str) -> list[str]:
        """Returns the words that train on the digits."""
        return ["train", "--dataset=digits", f"--data={self.data}", f"--runs={runs}", *flags]

    def one(self, *words: str) -> None:
        """Runs a command of ours in this very process."""
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output

    def start_two(self, *words: str) -> subprocess.Popen[str]:
        """Starts two Pythons with these words, by torchrun, on one thread each."""
        # Shells start what runs in the background with SIGINT ignored, and children would inherit.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
        return subprocess.Popen(
            [sys.executable, *launcher, *words],
            cwd=self.project,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )

    def two(self, *words: str) -> str:
        """Runs two Pythons with these words to their end, and returns what they printed."""
        process = self.start_two(*words)
        printed, said = process.communicate()
        assert process.returncode == 0, said
        return printed


def same(one: Path, other: Path, *, tolerance: float) -> bool:
    """Returns whether two runs ended with the same weights."""
    weights, others = (Checkpoint.load(folder).best_weights for folder in (one, other))
    return all(
        torch.allclose(weights[name], others[name], rtol=0, atol=tolerance) for name in weights
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Trains on one thread here, as each of two processes does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The project, and a data folder with the embedded digits."""
    data = tmp_path_factory.mktemp("data")
    prepare("digits", data)
    return Workplace(project, data)


@pytest.fixture(scope="module")
def whole(place: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of two processes that trained digitnet by its fast recipe, for longer."""
    runs = tmp_path_factory.mktemp("whole")
    place.two("-m", "training", *place.training(runs, *RECIPE))
    return runs


def test_gradients_of_one_process(place: Workplace, tmp_path: Path) -> None:
    """Without batch norm and augmentation, two processes end with one's weights but for rounding.

    No batch can be halved, and the last of each epoch has one image: none for the second process.
    """
    rest, _ = hold_out(load("digits", place.data, torch.device("cpu")).train, 0.05)
    size = next(size for size in range(31, len(rest), 2) if len(rest) % size == 1)
    flags = ["--arch=tiny", "--seed=0", f"--batch-size={size}", "--validation=0.05"]
    flags += ["--optimizer=sgd", "--learning-rate=0.05", "--epochs=2"]
    place.one(*place.training(tmp_path / "one", *flags))
    printed = place.two("-m", "training", *place.training(tmp_path / "two", *flags))

    assert same(tmp_path / "one/tiny", tmp_path / "two/tiny", tolerance=1e-5)
    first, second = (
        json.loads((tmp_path / name / "tiny/history.json").read_text())["epochs"]
        for name in ("one", "two")
    )
    assert [epoch["train"]["accuracy"] for epoch in second] == [
        epoch["train"]["accuracy"] for epoch in first
    ]
    assert [epoch["train"]["loss"] for epoch in second] == pytest.approx(
        [epoch["train"]["loss"] for epoch in first], rel=1e-4
    )
    rows = [line.split()[0] for line in printed.splitlines()]
    assert [row for row in rows if row.isdecimal()] == ["1", "2"]


def test_accuracy_of_one_process(place: Workplace, whole: Path, tmp_path: Path) -> None:
    """Two processes learn the digits as well as one does at the same batch size."""
    place.one(*place.training(tmp_path, *RECIPE))
    one, two = (Checkpoint.load(runs / "digitnet").test for runs in (tmp_path, whole))
    assert one is not None
    assert two is not None
    assert one.accuracy > 0.95
    assert two.accuracy == pytest.approx(one.accuracy, abs=0.02)


def test_interrupted_and_resumed(place: Workplace, whole: Path, tmp_path: Path) -> None:
    """Ctrl-C ends both processes; resumed by two a run ends with the same bits, or one ends it."""
    words = ["-m", "training", *place.training(tmp_path, *RECIPE)]
    with place.start_two(*words) as torchrun:
        assert torchrun.stdout is not None
        assert torchrun.stderr is not None
        next(line for line in torchrun.stdout if line.split()[:1] == ["2"])
        torchrun.send_signal(signal.SIGINT)
        torchrun.stdout.read()
        said = torchrun.stderr.read()
    assert torchrun.returncode != 0
    [told] = [line for line in said.splitlines() if line.startswith("Interrupted")]
    again = [*words[:3], "--resume", *words[3:]]
    assert told == f"Interrupted; go on with: torchrun … {shlex.join(again)}"

    parts = tmp_path / "digitnet/checkpoint.pt"
    assert 2 <= len(Checkpoint.load(parts.parent).history) < EPOCHS
    alone = tmp_path / "alone/digitnet/checkpoint.pt"
    alone.parent.mkdir(parents=True)
    alone.write_bytes(parts.read_bytes())

    place.two(*again)
    assert same(tmp_path / "digitnet", whole / "digitnet", tolerance=0)
    place.one(*place.training(tmp_path / "alone", *RECIPE, "--resume"))
    assert len(Checkpoint.load(alone.parent).history) == EPOCHS


def test_death_of_one(place: Workplace, tmp_path: Path) -> None:
    """Where one process is killed, the other does not wait for it."""
    words = ["-m", "training", *place.training(tmp_path, "--arch=tiny", "--epochs=1000")]
    with place.start_two(*words) as torchrun:
        assert torchrun.stdout is not None
        next(line for line in torchrun.stdout if line.split()[:1] == ["1"])
        children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
        *_, second = sorted(map(int, children))
        os.kill(second, signal.SIGKILL)
        torchrun.communicate()
    assert torchrun.returncode != 0
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--epochs=0"], "0 is not in the range"),
        (["--resume"], "holds no checkpoint"),
    ],
)
def test_errors_are_said_once(
    place: Workplace, tmp_path: Path, flags: list[str], sentence: str
) -> None:
    """What is wrong is said by one of the processes, without a trace of theirs."""
    torchrun = place.start_two("-m", "training", *place.training(tmp_path, *flags))
    _, said = torchrun.communicate()
    assert torchrun.returncode != 0
    [told] = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert sentence in told
    assert "[rank" not in said  # how PyTorch heads a trace


def test_several_processes_only_train() -> None:
    """Other commands are refused under torchrun, since several processes can but train together."""
    done = CliRunner().invoke(main, ["export"], env={"WORLD_SIZE": "2"})
    assert done.exit_code == 2
    assert "python -m training export" in done.stderr


DRAWING = """
import torch
from training import distributed

with distributed.group(torch.device("cpu")):
    torch.manual_seed(0)
    with distributed.own_randomness(torch.device("cpu")):
        own = torch.rand(())
    drawn = torch.stack([own, torch.rand(())])
    others = distributed.from_first(lambda: drawn)
    if not distributed.is_first():
        print((drawn == others).tolist())
"""


def test_own_randomness(place: Workplace) -> None:
    """Each process draws its own augmentation and dropout, and then again what all draw."""
    assert place.two("--no-python", sys.executable, "-c", DRAWING) == "[False, True]\n"
