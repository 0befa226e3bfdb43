"""Confidence means what it says, at no cost: the temperature is in the weights."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training.calibration import (
    calibrate,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from training.checkpoint import Checkpoint, Run
from training.config import RECIPES
from training.data import Dataset, Split, hold_out, load
from training.models import ARCHITECTURES
from training.sources import prepare
from training.train import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The embedded digits."""
    folder = tmp_path_factory.mktemp("data")
    prepare("digits", folder)
    return load("digits", folder, CPU)


def outcomes(n: int, sharpness: float) -> tuple[Tensor, Tensor]:
    """Draws labels from softmax(z) for random logits z, and returns sharpness · z with them."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, 10, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return sharpness * logits, labels


def error(logits: Tensor, labels: Tensor) -> float:
    """Returns the expected calibration error of softmax(logits)."""
    confidence, digit = logits.softmax(1).max(1)
    return expected_calibration_error(confidence, digit == labels)


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 2.5])
def test_temperature_undoes_overconfidence_and_its_opposite(sharpness: float) -> None:
    """Where logits are a factor too sharp or too flat, that factor is found."""
    logits, labels = outcomes(20_000, sharpness)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(sharpness, rel=0.03)
    assert error(logits / temperature, labels) < 0.01


def test_temperature_has_the_least_cross_entropy() -> None:
    """No temperature near the one that is found does better."""
    logits, labels = outcomes(2_000, 2.5)
    best = fit_temperature(logits, labels)
    least, *others = (
        cross_entropy(logits.double() / (best * factor), labels) for factor in (1, 0.99, 1.01)
    )
    assert all(least < other for other in others)


def test_no_certainty_from_few_images() -> None:
    """Where nothing is wrong, nothing says how sure to be, and logits are left as they are."""
    assert fit_temperature(torch.eye(10), torch.arange(10)) == 1


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_all_logits_are_divided(arch: str, digits: Dataset) -> None:
    """In every architecture the last layer's weights take the temperature, digits stay, loss falls.

    Untrained, and its logits spread a hundredfold, a model is far too sure of itself.
    """
    torch.manual_seed(0)
    model = ARCHITECTURES[arch]().eval()
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    last.weight.data *= 100
    pixels, labels = digits.test.images / 255, digits.test.labels
    with torch.inference_mode():
        before = model(pixels)
        temperature = calibrate(model, digits.test)
        after = model(pixels)
    assert temperature > 1
    torch.testing.assert_close(after, before / temperature)
    assert torch.equal(after.argmax(1), before.argmax(1))
    assert cross_entropy(after, labels) < cross_entropy(before, labels)


def test_an_overfitted_model_becomes_calibrated(digits: Dataset) -> None:
    """A model that learned a few images by heart is too sure, and less so once calibrated."""
    torch.manual_seed(0)
    model = ARCHITECTURES["tiny"]()
    few = digits.train.take(torch.arange(300))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = cross_entropy(model(few.images / 255), few.labels)
        loss.backward()
        optimizer.step()
    half, other = (digits.train.take(torch.arange(300 + start, 1437, 2)) for start in (0, 1))
    with torch.inference_mode():
        before = model(other.images / 255)
        calibrate(model, half)
        after = model(other.images / 255)
    assert error(after, other.labels) < 0.03 < error(before, other.labels)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_calibration_error_by_hand(kind: type) -> None:
    """Each bin's gap counts by its answers; a bin includes its upper edge."""
    confidence = kind([0.9, 0.9, 1.0, 0.75, 0.6])
    right = kind([True, False, True, True, False])
    # (0.75, 1.0]: 2/3 right at 0.9333; (0.5, 0.75]: 1/2 right at 0.675.
    expected = (3 * (2.8 / 3 - 2 / 3) + 2 * (0.675 - 0.5)) / 5
    assert expected_calibration_error(confidence, right, bins=4) == pytest.approx(expected)
    low, high = (asdict(part) for part in reliability(confidence, right, bins=4))
    assert low == pytest.approx({"confidence": 0.675, "accuracy": 0.5, "count": 2})
    assert high == pytest.approx({"confidence": 2.8 / 3, "accuracy": 2 / 3, "count": 3})


def go(digits: Dataset, folder: Path, *, resume: bool) -> Checkpoint:
    """Trains one epoch of `gap` on the embedded digits."""
    recipe = replace(RECIPES["gap"]["default"], epochs=1)
    return train(
        Run("gap", digits.name, digits.sha256, recipe, seed=0),
        digits,
        folder,
        git_commit="unknown",
        resume=resume,
        progress=Progress(disable=True),
        on_epoch=lambda _: None,
    )


def test_run_is_calibrated_once(digits: Dataset, tmp_path: Path) -> None:
    """A finished run's weights are scaled, and neither on disk nor by resuming scaled again."""
    done = go(digits, tmp_path, resume=False)
    last = list(done.best_weights)[-1]
    assert done.temperature != 1
    torch.testing.assert_close(
        done.best_weights[last] * done.temperature, done.state["model"][last]
    )
    for again in (Checkpoint.load(tmp_path), go(digits, tmp_path, resume=True)):
        assert again.temperature == done.temperature
        assert again.test == done.test
        assert torch.equal(again.best_weights[last], done.best_weights[last])


def test_run_is_calibrated_on_images_held_out(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temperature comes from the validation images: neither training nor test images."""
    seen: list[Split] = []

    def watched(model: nn.Module, images: Split) -> float:
        seen.append(images)
        return calibrate(model, images)

    monkeypatch.setattr("training.train.calibrate", watched)
    go(digits, tmp_path, resume=False)
    [held_out] = seen
    assert torch.equal(held_out.images, hold_out(digits.train, 0.05)[1].images)
