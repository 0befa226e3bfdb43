"""A teacher passes on what it knows, where it knows it."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from training import config
from training.checkpoint import Run
from training.cli import main
from training.data import Dataset, Split, load
from training.distillation import teacher_of, teacher_sha256
from training.errors import TrainingError
from training.onnx_graph import from_onnx
from training.train import Trainer, evaluate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/, and in models/ a digitnet that learned the embedded digits."""
    root = tmp_path_factory.mktemp("taught")
    at = [f"--data={root / 'data'}", f"--runs={root / 'runs'}"]
    train = ["train", *at, "--recipe=fast", "--epochs=8", "--dataset=digits", "--device=cpu"]
    result = CliRunner().invoke(main, [*train, "export", *at, f"--models={root / 'models'}"])
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture
def digits(root: Path) -> Dataset:
    """The embedded digits."""
    return load("digits", root / "data", CPU)


def taught(teacher: Path | str, dataset: Dataset) -> Run:
    """Returns a run of tiny with a teacher."""
    recipe = replace(config.RECIPES["tiny"]["default"], teacher=str(teacher))
    known = teacher_sha256(recipe.teacher, dataset.sha256)
    return Run("tiny", dataset.name, dataset.sha256, recipe, 0, known)


def test_students_learn_from_the_teacher(root: Path, digits: Dataset) -> None:
    """Where all labels are wrong, a student still learns what its teacher knows."""
    wrong = Split(digits.train.images, (digits.train.labels + 1) % 10)
    for teacher, known in ((root / "models/digitnet/1", True), ("", False)):
        trainer = Trainer(taught(teacher, digits), wrong)
        for _ in range(10):
            trainer.train_epoch(lambda: None)
        assert (evaluate(trainer.candidate, digits.test).accuracy > 0.9) == known


def test_an_exported_model_answers_as_a_module(root: Path, project: Path) -> None:
    """Read back from its file, a model of any architecture gives its own golden answers."""
    files = [*project.glob("models/digitnet*/*/model.onnx"), root / "models/digitnet/1/model.onnx"]
    for file in files:
        if "int8" not in str(file):
            with np.load(file.with_name("golden.npz")) as golden, torch.inference_mode():
                answers = from_onnx(onnx.load(file))(torch.from_numpy(golden["pixels"]))
                torch.testing.assert_close(
                    answers, torch.from_numpy(golden["logits"]), rtol=0, atol=1e-4
                )


def test_several_teachers_answer_together(root: Path, project: Path, digits: Dataset) -> None:
    """What is learned is the mean of their probabilities, softened by the temperature."""
    mine, bundled = (folder / "models/digitnet/1" for folder in (root, project))
    run = taught(mine, digits)
    both = replace(
        run, recipe=replace(run.recipe, teacher=f"{mine},{bundled}", teacher_temperature=3.0)
    )
    pixels = digits.test.images[:5] / 255
    logits = [from_onnx(onnx.load(folder / "model.onnx"))(pixels) for folder in (mine, bundled)]
    expected = sum((one / 3).softmax(1) for one in logits) / 2
    teacher = teacher_of(both, CPU)
    assert teacher is not None
    torch.testing.assert_close(teacher.answer(pixels), expected)


def test_one_teacher_of_other_data_is_enough(root: Path, digits: Dataset, project: Path) -> None:
    """Where one of several learned other data, none is asked."""
    mine, mnist = (folder / "models/digitnet/1" for folder in (root, project))
    assert teacher_sha256(f"{mine},{mine}", digits.sha256).count(",") == 1
    assert not teacher_sha256(f"{mine},{mnist}", digits.sha256)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_teachers_weight(root: Path, digits: Dataset, weight: float) -> None:
    """At 0 a teacher changes nothing, at 1 the labels do not."""
    run = taught(root / "models/digitnet/1", digits)
    weighed = replace(run, recipe=replace(run.recipe, teacher_weight=weight))
    teacher = teacher_of(weighed, CPU)
    assert teacher is not None
    logits = torch.randn(5, 10)
    wanted = teacher.answer(digits.test.images[:5] / 255)
    losses = [teacher.loss(logits, wanted, of_labels=torch.tensor(one)) for one in (1.0, 2.0)]
    assert (losses[0] == losses[1]) == (weight == 1)
    assert (losses[0] == 1) == (weight == 0)


def test_a_teacher_that_is_missing(project: Path) -> None:
    """It is named, with what brings it here."""
    there, missing = project / "models/digitnet/1", project / "models/digitnet/99"
    with pytest.raises(TrainingError, match=r"digitnet/99 is not there: .*`make teachers`"):
        teacher_sha256(f"{there},{missing}", "")


def test_a_teacher_in_int8_is_refused(project: Path) -> None:
    """Integers teach nobody, and that is said at once."""
    with pytest.raises(TrainingError, match=r"digitnet-int8/1 is in int8: name"):
        teacher_sha256(str(project / "models/digitnet-int8/1"), "")


def test_a_teacher_of_other_data_is_not_asked(root: Path, digits: Dataset, project: Path) -> None:
    """Of MNIST's teacher the embedded digits learn nothing, and who trains is told."""
    file = (root / "models/digitnet/1/model.onnx").read_bytes()
    known = taught(root / "models/digitnet/1", digits)
    assert known.teacher_sha256 == hashlib.sha256(file).hexdigest()
    assert Trainer(known, digits.train).teacher is not None
    mnist = project / "models/digitnet/1"
    assert Trainer(taught(mnist, digits), digits.train).teacher is None
    at = [f"--data={root / 'data'}", f"--runs={root / 'runs'}", "--dataset=digits"]
    words = ["train", "--arch=tiny", "--epochs=1", "--device=cpu", f"--teacher={mnist}", *at]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "learned other data: going on without it." in " ".join(result.stdout.split())


@pytest.mark.parametrize("content", [None, b"no model"])
def test_no_teacher_is_said(tmp_path: Path, content: bytes | None) -> None:
    """A teacher that is missing or damaged is one sentence, before anything is trained."""
    if content:
        (tmp_path / "model.onnx").write_bytes(content)
    words = ["train", "--arch=tiny", "--dataset=digits", f"--teacher={tmp_path}"]
    at = [f"--data={tmp_path / 'data'}", f"--runs={tmp_path / 'runs'}"]
    result = CliRunner().invoke(main, [*words, *at])
    assert result.exit_code == 1
    assert "model.onnx cannot be read: name a version that was exported" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
