"""Distortions do what their strengths say, and what a model makes of them is kept."""

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from training.calibration import expected_calibration_error
from training.cli import main
from training.data import load
from training.experiments.distortions import DISTORTIONS, PIECE, distort
from training.golden import golden_pixels
from training.parity import logits, open_session
from training.sources import prepare

EVERY = [(name, strength) for name, way in DISTORTIONS.items() for strength in way.strengths]


def seeded(seed: int = 0) -> torch.Generator:
    """Returns a source of random numbers."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def drawings() -> Tensor:
    """The golden inputs: strokes that the project drew, and noise."""
    return torch.from_numpy(golden_pixels())


@pytest.fixture
def dots() -> Tensor:
    """256 images of the same soft dot, 4 pixels above the centre and 3 to its right."""
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    dot = torch.exp(-((rows - 9.5) ** 2 + (columns - 16.5) ** 2) / 4)
    return dot.expand(256, 1, 28, 28).contiguous()


def offsets(images: Tensor) -> Tensor:
    """Returns how far each image's centre of mass is below and right of its middle, [n, 2]."""
    weights = images.squeeze(1) / images.sum((1, 2, 3))[:, None, None]
    places = torch.arange(28.0) - 13.5
    return torch.stack([weights.sum(2) @ places, weights.sum(1) @ places], 1)


def test_all_that_was_asked_for() -> None:
    """There are nine ways to distort, each at several strengths."""
    assert DISTORTIONS.keys() == {
        "translate",
        "rotate",
        "scale",
        "shear",
        "gaussian_blur",
        "gaussian_noise",
        "thickness",
        "contrast",
        "clutter",
    }
    assert all(len(set(way.strengths)) == 5 for way in DISTORTIONS.values())
    assert all(way.none not in way.strengths for way in DISTORTIONS.values())


@pytest.mark.parametrize(("name", "strength"), EVERY)
def test_images_stay_images(name: str, strength: float, drawings: Tensor) -> None:
    """Whatever is done to them, images keep their shape and range; the same seed does the same."""
    before = drawings.clone()
    distorted = distort(drawings, name, strength, seeded())
    assert torch.equal(drawings, before)
    assert distorted.shape == drawings.shape
    assert distorted.min() >= 0
    assert distorted.max() <= 1
    assert not torch.equal(distorted, drawings)
    assert torch.equal(distorted, distort(drawings, name, strength, seeded()))


@pytest.mark.parametrize("name", ["translate", "rotate", "shear", "gaussian_noise", "clutter"])
def test_other_seed_other_images(name: str, drawings: Tensor) -> None:
    """What is left to chance differs from seed to seed."""
    strength = DISTORTIONS[name].strengths[0]
    one, other = (distort(drawings, name, strength, seeded(seed)) for seed in (1, 2))
    assert not torch.equal(one, other)


def test_translate(dots: Tensor) -> None:
    """Images move by the pixels asked for in both directions, to all four corners."""
    moved = offsets(distort(dots, "translate", 3, seeded())) - offsets(dots)
    torch.testing.assert_close(moved.abs(), torch.full((256, 2), 3.0), atol=0.02, rtol=0)
    assert len({tuple(signs) for signs in moved.sign().tolist()}) == 4


def test_rotate(dots: Tensor) -> None:
    """Images turn by the degrees asked for, either way, and keep their distance."""
    was, turned = (torch.view_as_complex(o) for o in (offsets(dots), turn(dots)))
    angles = (turned / was).angle().rad2deg()
    torch.testing.assert_close(angles.abs(), torch.full((256,), 30.0), atol=0.5, rtol=0)
    assert len(set(angles.sign().tolist())) == 2
    torch.testing.assert_close(turned.abs(), was.abs(), atol=0.05, rtol=0)


def turn(images: Tensor) -> Tensor:
    """Returns where centres of mass are after a rotation by 30 degrees."""
    return offsets(distort(images, "rotate", 30, seeded()))


@pytest.mark.parametrize("factor", [0.5, 1.4])
def test_scale(factor: float, dots: Tensor) -> None:
    """Everything is so many times as far from the middle, and as large."""
    scaled = distort(dots, "scale", factor, seeded())
    torch.testing.assert_close(offsets(scaled), factor * offsets(dots), atol=0.05, rtol=0)
    ink = scaled.sum() / dots.sum()
    assert ink == pytest.approx(factor**2, rel=0.02)


def test_shear(dots: Tensor) -> None:
    """A dot above the middle moves sideways, by its height times the angle's tangent."""
    moved = offsets(distort(dots, "shear", 20, seeded())) - offsets(dots)
    torch.testing.assert_close(moved[:, 0], torch.zeros(256), atol=0.02, rtol=0)
    expected = torch.full((256,), 4 * math.tan(math.radians(20)))
    torch.testing.assert_close(moved[:, 1].abs(), expected, atol=0.02, rtol=0)
    assert len(set(moved[:, 1].sign().tolist())) == 2


def test_gaussian_blur() -> None:
    """A point becomes a spot with as much ink, and with that standard deviation."""
    point = torch.zeros(1, 1, 28, 28)
    point[0, 0, 14, 14] = 1
    spot = distort(point, "gaussian_blur", 2, seeded())[0, 0]
    assert spot.sum() == pytest.approx(1)
    distance = torch.arange(28.0) - 14
    for along in (0, 1):
        assert (spot.sum(along) @ distance**2) ** 0.5 == pytest.approx(2, rel=0.03)


def test_gaussian_noise() -> None:
    """Grey pixels deviate as much as asked for, each its own way."""
    noisy = distort(torch.full((64, 1, 28, 28), 0.5), "gaussian_noise", 0.1, seeded())
    assert noisy.mean() == pytest.approx(0.5, abs=0.002)
    assert noisy.std() == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize(("pixels", "width"), [(-1, 2), (1, 4), (2, 5)])
def test_thickness(pixels: float, width: int) -> None:
    """A bar of three pixels becomes so much wider or thinner, about its middle."""
    bar = torch.zeros(1, 1, 28, 28)
    bar[..., 10:13] = 1
    changed = distort(bar, "thickness", pixels, seeded())[0, 0]
    assert changed.sum() == pytest.approx(28 * width)
    assert offsets(changed[None, None])[0, 1] == pytest.approx(11 - 13.5)


def test_contrast(drawings: Tensor) -> None:
    """All pixels keep a part of their distance from the image's mean."""
    pale = distort(drawings, "contrast", 0.3, seeded())
    torch.testing.assert_close(pale.mean((1, 2, 3)), drawings.mean((1, 2, 3)))
    torch.testing.assert_close(pale.std((1, 2, 3)), 0.3 * drawings.std((1, 2, 3)))


def test_clutter(drawings: Tensor) -> None:
    """So many squares gain ink from other images, anywhere; nothing loses any."""
    one, six = (distort(drawings, "clutter", pieces, seeded()) - drawings for pieces in (1, 6))
    assert min(one.min(), six.min()) >= 0
    for gained in one[one.sum((1, 2, 3)) > 0]:
        _, rows, columns = gained.nonzero().unbind(1)
        assert max(rows.max() - rows.min(), columns.max() - columns.min()) < PIECE
    assert six.sum() > 3 * one.sum() > 0
    assert (six.amax(0) > 0).float().mean() > 0.8


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    """A folder with data/, and the bundled model, said to be of the embedded digits."""
    root = tmp_path_factory.mktemp("robustness")
    prepare("digits", root / "data")
    model = onnx.load(project / "models/digitnet/1/model.onnx")
    onnx.helper.set_model_props(model, {"architecture": "digitnet", "dataset": "digits"})
    (root / "models/mine/3").mkdir(parents=True)
    onnx.save(model, root / "models/mine/3/model.onnx")
    return root


def robustness(root: Path, *versions: Path) -> Result:
    """Runs the command with its folders in `root`."""
    folders = [f"--data={root}/data", f"--results={root}/results"]
    return CliRunner().invoke(main, ["robustness", *folders, *map(str, versions)])


@pytest.fixture(scope="module")
def found(root: Path) -> dict[str, Any]:
    """What the command keeps of a model."""
    result = robustness(root, root / "models/mine/3")
    assert result.exit_code == 0, result.output
    kept: dict[str, Any] = json.loads((root / "results/robustness-mine.json").read_text())
    assert f"mine: {kept['clean_accuracy']:.2%} undistorted" in result.stdout
    for row in kept["distortions"].values():
        assert f"{row['mean_accuracy']:.1%}" in result.stdout
    return kept


def test_what_is_kept(found: dict[str, Any], root: Path) -> None:
    """The clean images' accuracy and calibration are those of the model's own answers."""
    session = open_session((root / "models/mine/3/model.onnx").read_bytes())
    test = load("digits", root / "data", torch.device("cpu")).test
    answers = torch.from_numpy(logits(session, (test.images / 255).numpy())).softmax(1)
    confidence, digit = answers.max(1)
    right = digit == test.labels
    assert [found[key] for key in ("name", "version", "dataset")] == ["mine", 3, "digits"]
    assert found["images"] == len(test)
    assert found["clean_accuracy"] == pytest.approx(right.double().mean().item())
    error = expected_calibration_error(confidence, right)
    calibration = found["calibration"]
    assert calibration["expected_calibration_error"] == pytest.approx(error, abs=1e-5)
    assert sum(part["count"] for part in calibration["bins"]) == len(test)


def test_every_strength_counts(found: dict[str, Any], root: Path) -> None:
    """Each strength's accuracy is that of its images, and the means are means."""
    session = open_session((root / "models/mine/3/model.onnx").read_bytes())
    test = load("digits", root / "data", torch.device("cpu")).test
    row = found["distortions"]["gaussian_noise"]
    assert row["strengths"] == list(DISTORTIONS["gaussian_noise"].strengths)
    for strength, accuracy in zip(row["strengths"], row["accuracy"], strict=True):
        noisy = distort(test.images / 255, "gaussian_noise", strength, seeded())
        digits = logits(session, noisy.numpy()).argmax(1)
        assert accuracy == pytest.approx(np.mean(digits == test.labels.numpy()))
    assert found["distortions"].keys() == DISTORTIONS.keys()
    for row in found["distortions"].values():
        assert row["mean_accuracy"] == pytest.approx(fmean(row["accuracy"]))
    means = [row["mean_accuracy"] for row in found["distortions"].values()]
    assert found["mean_accuracy"] == pytest.approx(fmean(means))


def test_evidence(found: dict[str, Any]) -> None:
    """What was found is kept with what it takes to judge it and to repeat it."""
    assert {"command", "machine", "versions", "git_commit", "created"} <= found.keys()


def refused(result: Result) -> str:
    """Returns what a failed command said: one line, and no trace."""
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_folder_without_a_model(root: Path, tmp_path: Path) -> None:
    """A folder that holds no model is refused in one sentence."""
    assert "model.onnx cannot be read" in refused(robustness(root, tmp_path))


def test_file_that_is_no_model(root: Path, tmp_path: Path) -> None:
    """So is a file that is none."""
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    assert "model.onnx cannot be read" in refused(robustness(root, tmp_path))


def test_model_of_others(root: Path, tmp_path: Path) -> None:
    """A model that does not say what it was trained on is refused."""
    model = onnx.load(root / "models/mine/3/model.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "model.onnx")
    assert "was not exported here" in refused(robustness(root, tmp_path))


def test_bundled_model_means_what_it_says(bundled_models: Path, mnist: Path) -> None:
    """On MNIST's test images the bundled model's confidence is off by half a point at most."""
    session = open_session((bundled_models / "digitnet/1/model.onnx").read_bytes())
    test = load("mnist", mnist, torch.device("cpu")).test
    answers = [torch.from_numpy(logits(session, p.numpy())) for p, _ in test.batches(1000)]
    confidence, digit = torch.cat(answers).softmax(1).max(1)
    assert expected_calibration_error(confidence, digit == test.labels) <= 0.005
