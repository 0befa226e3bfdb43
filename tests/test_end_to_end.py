"""The main job from end to end: train, export, serve, ask, by the commands that people type."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., str]


@pytest.fixture
def run(project: Path) -> Run:
    """Runs `python -m ...` from the project's root and returns what it prints."""

    def run(*arguments: str) -> str:
        process = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=project, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    return run


def test_the_whole_chain_on_the_embedded_digits(
    run: Run, start_server: Any, tmp_path: Path
) -> None:
    """Without MNIST and without a network, what was trained is what is served."""
    data, runs, models = (str(tmp_path / name) for name in ("data", "runs", "models"))
    chosen = ("--arch", "tiny", "--data", data, "--runs", runs)
    train = ("train", *chosen, "--dataset", "digits", "--epochs", "10")
    run("training", *train, "export", *chosen, "--models", models)
    server = start_server("--models", models, "--default-model", "tiny")
    evaluate = ("client", "evaluate", "--server", server.address, "--data", data, "--json")
    answer = json.loads(run(*evaluate, "--dataset", "digits"))
    assert answer["model"] == "tiny"
    assert answer["accuracy"] == answer["expected_accuracy"]
    assert answer["accuracy"] > 0.8
    assert "not trained on MNIST" in server.log.read_text()


def test_the_whole_chain_on_mnist(run: Run, start_server: Any, mnist: Path, tmp_path: Path) -> None:
    """On MNIST `tiny` learns, exports proved, and over gRPC is right on as many images."""
    runs, models = (str(tmp_path / name) for name in ("runs", "models"))
    chosen = ("--arch", "tiny", "--data", str(mnist), "--runs", runs)
    run("training", "train", *chosen, "--dataset", "mnist")
    proof = run("training", "export", *chosen, "--models", models)
    assert "on 10,000 test images" in proof
    server = start_server("--models", models, "--default-model", "tiny")
    evaluate = ("client", "evaluate", "--server", server.address, "--data", str(mnist), "--json")
    answer = json.loads(run(*evaluate, "--dataset", "mnist", "--mode", "batch"))
    assert answer["images"] == 10_000
    assert answer["accuracy"] == answer["expected_accuracy"]
    assert answer["accuracy"] >= 0.97  # 97.65 % ± 0.22 over six seeds: another CPU is another draw


@pytest.mark.parametrize("mode", ["unary", "batch", "stream"])
def test_the_bundled_model_is_as_good_as_it_says(
    run: Run, server: Any, mnist: Path, mode: str
) -> None:
    """All 10,000 test images over gRPC give the accuracy in the metadata, to the last image."""
    evaluate = ("client", "evaluate", "--server", server.address, "--data", str(mnist), "--json")
    answer = json.loads(run(*evaluate, "--dataset", "mnist", "--mode", mode))
    assert answer["model"] == "digitnet"
    assert answer["correct"] == round(answer["expected_accuracy"] * 10_000)
    assert answer["accuracy"] >= 0.994


def test_the_bundled_model_knows_the_bundled_samples(run: Run, server: Any) -> None:
    """The ten digits that the project draws itself are all answered right."""
    answer = json.loads(run("client", "predict", "--server", server.address, "--samples", "--json"))
    assert [prediction["digit"] for prediction in answer["predictions"]] == list(range(10))


@pytest.mark.parametrize("target", ["train", "serve", "test", "evaluate"])
def test_make_installs_what_a_target_needs(project: Path, target: str) -> None:
    """On a fresh checkout a target installs first; `serve` does with the server's locked needs."""
    process = subprocess.run(
        ["make", "--dry-run", "VENV=.nothing", target],  # noqa: S607 - whichever make there is
        cwd=project,
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert ".nothing/bin/pip install" in process.stdout
    locked_alone = "--editable" not in process.stdout
    assert locked_alone == (target == "serve")
