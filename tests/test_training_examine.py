"""Examining an exported version counts what it answers, and names images by index alone."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from training.cli import main
from training.data import Dataset, load


def examine(folder: Path, results: Path, data: Path) -> Result:
    """Runs `examine` on one version."""
    folders = (f"--results={results}", f"--data={data}")
    return CliRunner().invoke(main, ["examine", *folders, str(folder)])


@pytest.fixture(scope="module")
def dataset(mnist: Path) -> Dataset:
    """MNIST."""
    return load("mnist", mnist, torch.device("cpu"))


@pytest.fixture(scope="module")
def found(bundled_models: Path, mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What examining the bundled model found."""
    results = tmp_path_factory.mktemp("results")
    result = examine(bundled_models / "digitnet/1", results, mnist)
    assert result.exit_code == 0, result.output
    found = json.loads((results / "examined-digitnet.json").read_text())
    assert f"{found['correct']:,} of 10,000 test images right" in result.stdout
    return found


@pytest.fixture(scope="module")
def probabilities(bundled_models: Path, dataset: Dataset) -> NDArray[np.float32]:
    """What the bundled model's file says of all test images, [10000, 10]."""
    session = onnxruntime.InferenceSession(bundled_models / "digitnet/1/model.onnx")
    pixels = dataset.test.images.numpy().astype(np.float32) / 255
    answered: NDArray[np.float32] = session.run(["probabilities"], {"pixels": pixels})[0]
    return answered


def test_file(found: Any, bundled_models: Path) -> None:
    """The result says which file it is about, with all that its metadata says."""
    content = (bundled_models / "digitnet/1/model.onnx").read_bytes()
    facts = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    assert (found["name"], found["version"]) == ("digitnet", 1)
    assert (found["bytes"], found["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert found["metadata"] == facts
    assert found["correct"] == round(float(facts["test_accuracy"]) * 10_000)


def test_counts(found: Any, probabilities: NDArray[np.float32], dataset: Dataset) -> None:
    """Right answers, confusion matrix and mistakes are what the file answers."""
    labels, answers = dataset.test.labels.numpy(), probabilities.argmax(1)
    assert found["images"] == len(labels) == 10_000
    assert found["correct"] == (answers == labels).sum()
    for digit, counts in enumerate(found["confusion"]):
        assert counts == np.bincount(answers[labels == digit], minlength=10).tolist()
    assert [image["index"] for image in found["mistakes"]] == np.flatnonzero(
        answers != labels
    ).tolist()


def test_hardest(found: Any, probabilities: NDArray[np.float32], dataset: Dataset) -> None:
    """The hardest images are those whose true digit was given the least probability."""
    of_label = probabilities[np.arange(10_000), dataset.test.labels.numpy()]
    hardest = found["hardest"]
    assert [image["index"] for image in hardest] == np.argsort(of_label)[: len(hardest)].tolist()
    for image in [*hardest, *found["mistakes"]]:
        answered = probabilities[image["index"]]
        assert image["label"] == dataset.test.labels[image["index"]]
        assert image["answer"] == answered.argmax()
        assert image["confidence"] == pytest.approx(answered.max(), rel=1e-4)
        assert image["cross_entropy"] == pytest.approx(-np.log(answered[image["label"]]), rel=1e-4)
    assert found["cross_entropy"] == pytest.approx(-np.log(of_label).mean(), rel=1e-3)


def test_latency(found: Any) -> None:
    """One image and batches were timed."""
    assert found["latency"]["p50_us"]["median"] > 0
    assert found["latency"]["images_per_second"]["median"] > 0


@pytest.mark.parametrize("content", [None, b"", b"no model", b"\x00" * 100])
def test_no_model(content: bytes | None, tmp_path: Path) -> None:
    """A folder without a model of ours is named in one sentence, and nothing is kept."""
    folder = tmp_path / "models/tiny/1"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "model.onnx").write_bytes(content)
    result = examine(folder, tmp_path / "results", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert str(folder) in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_other_data(bundled_models: Path, mnist: Path, tmp_path: Path) -> None:
    """A model is not examined on other data than it was trained on."""
    model = onnx.load(bundled_models / "digitnet/1/model.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, facts | {"dataset_sha256": "0" * 64})
    folder = tmp_path / "models/digitnet/1"
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    result = examine(folder, tmp_path / "results", mnist)
    assert result.exit_code == 1
    assert "other data" in result.stderr
    assert not (tmp_path / "results").exists()
