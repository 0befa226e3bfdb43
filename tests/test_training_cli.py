"""What the train command accepts, and how it refuses the rest."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from training.checkpoint import Checkpoint
from training.cli import main
from training.config import RECIPES, Recipe
from training.models import ARCHITECTURES


def train(root: Path, *flags: str) -> Result:
    """Runs `train` on the embedded digits, with its folders in `root`."""
    folders = [f"--data={root}/data", f"--runs={root}/runs"]
    command = ["train", "--arch", "tiny", "--dataset", "digits", *folders, *flags]
    return CliRunner().invoke(main, command)


def refused(result: Result) -> str:
    """Returns what a failed command said: one line, and no trace."""
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_recipes() -> None:
    """Every architecture has a default recipe, and the zoo's have a better one beside it."""
    assert RECIPES.keys() == ARCHITECTURES.keys()
    assert all("default" in named for named in RECIPES.values())
    assert {arch for arch, named in RECIPES.items() if "best" in named} >= {
        "tiny", "dropout", "light", "gap",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arch", "epochs", "batch_size"),
    [("tiny", 2, 64), ("dropout", 10, 100), ("light", 10, 64), ("gap", 1, 64)],
)
def test_recipes_as_specified(arch: str, epochs: int, batch_size: int) -> None:
    """The references' recipes are as they have them: plain Adam at 1e-3, nothing added."""
    assert RECIPES[arch]["default"] == Recipe(
        epochs=epochs, batch_size=batch_size, optimizer="adam", learning_rate=1e-3
    )


def test_recipe_by_name(tmp_path: Path) -> None:
    """A recipe is chosen by its name, and single choices change it."""
    assert train(tmp_path, "--recipe", "best", "--epochs", "1").exit_code == 0
    run = Checkpoint.load(tmp_path / "runs/tiny").run
    assert run.recipe == replace(RECIPES["tiny"]["best"], epochs=1)


def test_recipe_of_another_architecture(tmp_path: Path) -> None:
    """A recipe that the architecture has not is refused, and those it has are named."""
    said = refused(train(tmp_path, "--arch", "digitnet-s", "--recipe", "fast"))
    assert "'default'" in said


def test_every_choice_is_a_flag(tmp_path: Path) -> None:
    """Each of the recipe's choices can be made on the command line, and is what the run says."""
    chosen = {
        "epochs": 1,
        "batch_size": 100,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "weight_decay": 0.001,
        "schedule": "one-cycle",
        "warmup": 0.3,
        "label_smoothing": 0.1,
        "teacher": "models/digitnet-s/1",
        "teacher_temperature": 3.0,
        "teacher_weight": 0.5,
        "ema_decay": 0.9,
        "precision": "bfloat16",
        "rotation": 5.0,
        "shear": 4.0,
        "scale": 0.05,
        "shift": 1.0,
        "elastic": 0.4,
        "validation": 0.2,
        "monitor": "none",
    }
    assert chosen.keys() == {field.name for field in fields(Recipe)}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]
    result = train(tmp_path, *flags, "--name", "mine", "--seed", "3")
    assert result.exit_code == 0, result.output
    run = Checkpoint.load(tmp_path / "runs/mine").run
    assert asdict(run.recipe) == chosen
    assert run.seed == 3


@pytest.mark.parametrize(
    "flags",
    [
        "--batch-size=400 --schedule=one-cycle",  # whose rate climbs for one step only
        "--validation=0.9999",
        f"--seed={2**63 - 1}",
    ],
)
def test_extremes(tmp_path: Path, flags: str) -> None:
    """What a choice's range admits can be trained with."""
    result = train(tmp_path, "--epochs=1", *flags.split())
    assert result.exit_code == 0, result.output


def test_table(tmp_path: Path) -> None:
    """Each epoch is a row on the screen, and the test accuracy comes last."""
    result = train(tmp_path)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows if row[0].isdecimal()] == ["1", "2"]
    run = Checkpoint.load(tmp_path / "runs/tiny")
    assert run.test is not None
    assert f"{run.test.accuracy:.2%}" in result.stdout.splitlines()[-1]


def test_unknown_architecture(tmp_path: Path) -> None:
    """An unknown architecture is a usage error that lists those there are."""
    result = train(tmp_path, "--arch", "resnet")
    assert result.exit_code == 2
    assert all(arch in result.stderr for arch in ARCHITECTURES)


@pytest.mark.parametrize(
    "flag", ["--epochs=0", "--batch-size=0", "--learning-rate=0", "--ema-decay=1", "--validation=1"]
)
def test_choice_out_of_range(tmp_path: Path, flag: str) -> None:
    """A choice out of its range is a usage error that names the flag."""
    result = train(tmp_path, flag)
    assert result.exit_code == 2
    assert flag.partition("=")[0] in result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none(tmp_path: Path) -> None:
    """Asking for CUDA where there is none says so, before anything is written."""
    assert "no CUDA device" in refused(train(tmp_path, "--device", "cuda"))
    assert not list(tmp_path.iterdir())


def test_resume_before_train(tmp_path: Path) -> None:
    """There must be a run to resume."""
    assert "no checkpoint" in refused(train(tmp_path, "--resume"))


def test_resume_with_other_choices(tmp_path: Path) -> None:
    """A run is not resumed with other choices than it was started with; they are named."""
    train(tmp_path, "--epochs", "1")
    said = refused(train(tmp_path, "--epochs", "3", "--seed", "9", "--resume"))
    assert "epochs 1, not 3" in said
    assert "not 9" in said


def test_resume_when_done(tmp_path: Path) -> None:
    """Resuming a finished run changes nothing and tells its result again."""
    first = train(tmp_path)
    before = (tmp_path / "runs/tiny/checkpoint.pt").read_bytes()
    again = train(tmp_path, "--resume")
    assert again.exit_code == 0
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    assert (tmp_path / "runs/tiny/checkpoint.pt").read_bytes() == before


def test_runs_folder_that_is_a_file(tmp_path: Path) -> None:
    """A runs folder that cannot be written ends in one sentence."""
    (tmp_path / "runs").touch()
    assert f"{tmp_path}/runs/tiny" in refused(train(tmp_path))
