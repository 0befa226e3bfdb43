"""What the stored results have to show, so that no new result breaks what is promised."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from training.config import recipe_named
from training.experiments.evidence import same_recipe
from training.experiments.plan import REFERENCES, STUDIES, Study

SIZES = ("digitnet", "digitnet-s", "digitnet-l")


@pytest.fixture
def found(project: Path) -> Any:
    """Reads a stored result by its name."""
    return lambda name: json.loads((project / f"docs/results/{name}.json").read_text())


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_studies(found: Any, study: Study) -> None:
    """What is stored of a recipe is of the recipe as it is now, with all its seeds, on MNIST."""
    there = found(study.name)
    assert there["dataset"] == "mnist"
    assert same_recipe(there["settings"], asdict(recipe_named(study.arch, study.recipe)))
    assert there["test_accuracy"]["n"] >= study.seeds


@pytest.mark.parametrize(
    ("name", "parameters", "accuracy", "seeds"),
    [
        ("digitnet-default", 20_000, 0.996, 5),
        ("digitnet-s-default", 10_000, 0.995, 5),
        ("digitnet-l-best", 150_000, 0.9975, 3),
    ],
)
def test_sizes(found: Any, name: str, parameters: int, accuracy: float, seeds: int) -> None:
    """Each size is as small and as accurate as it is meant to be, on average."""
    study = found(name)
    assert study["parameters"] < parameters
    assert study["test_accuracy"]["n"] >= seeds
    assert study["test_accuracy"]["mean"] >= accuracy


@pytest.mark.parametrize("arch", REFERENCES)
def test_best_beats_the_reference(found: Any, arch: str) -> None:
    """On the same layers, the mean of five seeds is above the reference's one run."""
    accuracy = found(f"{arch}-best")["test_accuracy"]
    assert accuracy["n"] >= 5
    assert accuracy["mean"] > REFERENCES[arch].accuracy


@pytest.mark.parametrize("arch", REFERENCES)
def test_ceiling(found: Any, arch: str) -> None:
    """What is called a ceiling is higher than all else on the same layers."""
    accuracy = found(f"{arch}-ceiling")["test_accuracy"]
    assert accuracy["n"] >= 3
    for recipe in ("default", "best"):
        assert accuracy["mean"] > found(f"{arch}-{recipe}")["test_accuracy"]["mean"]


def test_fast_training(found: Any) -> None:
    """Two epochs of the fast recipe are enough, and take at most a fifth of light's time."""
    fast = found("fast-cpu")
    assert fast["dataset"] == "mnist"
    assert fast["fast"]["test_accuracy"]["n"] >= 5
    assert fast["fast"]["test_accuracy"]["mean"] >= 0.99
    assert fast["seconds_of_fast_over_light"] <= 0.2


def test_fast_training_on_cuda(found: Any) -> None:
    """Where there is a GPU, two epochs take less than two seconds."""
    fast = found("fast-cuda")
    assert fast["dataset"] == "mnist"
    assert fast["fast"]["test_accuracy"]["n"] >= 5
    assert fast["fast"]["test_accuracy"]["mean"] >= 0.99
    assert fast["fast"]["seconds"]["mean"] <= 2


def test_two_processes_are_as_good_as_one(found: Any) -> None:
    """Their mean accuracies differ by less than the seeds' spread."""
    distributed = found("distributed-cpu")
    assert distributed["dataset"] == "mnist"
    one, two = (
        distributed["one_process"]["test_accuracy"],
        distributed["two_processes"]["test_accuracy"],
    )
    spread = max(one["standard_deviation"], two["standard_deviation"])
    assert abs(one["mean"] - two["mean"]) <= spread


def test_robustness(found: Any) -> None:
    """Over all distortions digitnet is five points above light, and its confidence is true."""
    digitnet, light = found("robustness-digitnet"), found("robustness-light")
    assert digitnet["dataset"] == light["dataset"] == "mnist"
    assert digitnet["mean_accuracy"] >= light["mean_accuracy"] + 0.05
    assert digitnet["calibration"]["expected_calibration_error"] <= 0.005


@pytest.mark.parametrize("arch", SIZES)
def test_int8(found: Any, arch: str) -> None:
    """Int8 is smaller and quicker, or it would not be bundled, and loses next to nothing."""
    both = found(f"quantization-{arch}")
    before, after = both["float"], both["int8"]
    assert after["test_accuracy"] >= before["test_accuracy"] - 0.0005
    assert after["bytes"] < before["bytes"]
    assert after["p50_us"]["median"] < before["p50_us"]["median"]
