"""`python -m client` as people and scripts run it."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from conftest import until
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from PIL import Image, ImageOps
from test_client_calls import Script, serving

from client.mnist import FILES, MNIST_SHA256, load
from client.samples import draw
from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run(project: Path) -> Run:
    """Runs the client from the project's root, without a terminal."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "client", *map(str, arguments)]
        process = subprocess.run(
            command, cwd=project, env=os.environ | environment, capture_output=True, text=True
        )
        assert "Traceback" not in process.stderr
        return process

    return run


class Liar(PredictionServiceServicer):
    """Sees a three in every image, and claims what the test tells it to claim."""

    def __init__(self) -> None:
        self.model = pb.Model(name="liar", version=1, ready=True, default=True, dataset="digits")
        self.health = health.HealthServicer()

    def PredictBatch(self, request: Any, context: Any) -> pb.PredictBatchResponse:
        """Sees threes."""
        count = len(request.pixels) // 784
        three = pb.Prediction(digit=3, confidence=1, probabilities=[0] * 10, logits=[0] * 10)
        return pb.PredictBatchResponse(predictions=[three] * count, model="liar", model_version=1)

    def ListModels(self, request: Any, context: Any) -> pb.ListModelsResponse:
        """Claims."""
        return pb.ListModelsResponse(models=[self.model])


@pytest.fixture
def liar() -> Iterator[tuple[Liar, str]]:
    """A service that does not keep what it claims, and its address."""
    liar = Liar()  # type: ignore[abstract] # the other methods are UNIMPLEMENTED
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    add_PredictionServiceServicer_to_server(liar, server)
    health_pb2_grpc.add_HealthServicer_to_server(liar.health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield liar, f"localhost:{port}"
    server.stop(None).wait()


@pytest.fixture
def silence() -> Iterator[str]:
    """The address of a port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that is taken, so that nobody else takes it, and where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A data root with five embedded digits: 3, 3, 3, 4, 5."""
    folder = tmp_path / "digits/raw"
    folder.mkdir(parents=True)
    images = struct.pack(">HBBIII", 0, 8, 3, 5, 28, 28) + bytes(5 * 784)
    labels = struct.pack(">HBBI", 0, 8, 1, 5) + bytes([3, 3, 3, 4, 5])
    for name in FILES:
        (folder / name).write_bytes(images if "images" in name else labels)
    return tmp_path


def test_the_samples_are_recognised(run: Run, server: Any) -> None:
    """All ten drawings that ship with the project are what they say they are."""
    process = run("predict", "--server", server.address, "--samples", "--json")
    predictions = json.loads(process.stdout)["predictions"]
    assert process.returncode == 0
    assert [one["digit"] for one in predictions] == list(range(10))
    assert [one["label"] for one in predictions] == list(range(10))


def test_a_test_image_is_shown(run: Run, server: Any, mnist: Path) -> None:
    """The digit is drawn, with its answer, true label and a bar for each digit."""
    process = run("predict", "--server", server.address, "--data", mnist, "--index", 7)
    assert process.returncode == 0
    heading, *rows = process.stdout.splitlines()
    assert heading.startswith("test image 7  9")
    assert heading.endswith("true label 9: right")
    drawing = [row[:28] for row in rows[:14]]
    pixels = load("mnist", mnist).images[7] > 127
    lower_half = [[cell in "▄█" for cell in row.ljust(28)] for row in drawing]
    assert np.array_equal(lower_half, pixels[1::2])
    bars = [row[28:].split() for row in rows[2:12]]
    assert [int(bar[0]) for bar in bars] == list(range(10))
    assert "█" in bars[9][1]


def test_scripts_read_the_same(run: Run, server: Any, mnist: Path) -> None:
    """The JSON object has the documented keys, and several kinds of images in order."""
    process = run(
        *("predict", "--server", server.address, "--data", mnist, "--json"),
        *("--index", 7, "--index", 0, "--random", 3, "--seed", 1),
    )
    predictions = json.loads(process.stdout)["predictions"]
    assert [one["source"] for one in predictions[:2]] == ["test image 7", "test image 0"]
    assert len({one["source"] for one in predictions}) == 5
    first = predictions[0]
    assert first["label"] == first["digit"] == 9
    assert first["confidence"] == first["probabilities"][9] == max(first["probabilities"])
    assert sum(first["probabilities"]) == pytest.approx(1)
    assert np.argmax(first["logits"]) == 9
    assert (first["model"], first["model_version"]) == ("digitnet", 1)


def test_a_seed_draws_the_same_again(run: Run, server: Any, mnist: Path) -> None:
    """--random with a --seed is no surprise."""
    arguments = ("predict", "--server", server.address, "--data", mnist, "--random", 5, "--json")
    assert run(*arguments, "--seed", 3).stdout == run(*arguments, "--seed", 3).stdout
    assert run(*arguments, "--seed", 3).stdout != run(*arguments, "--seed", 4).stdout


def test_pictures_are_recognised(run: Run, server: Any, tmp_path: Path) -> None:
    """A PNG with dark ink and a JPEG with light ink are prepared and recognised."""
    png, jpeg = tmp_path / "four.png", tmp_path / "two.jpg"
    draw(4, 300).save(png)
    ImageOps.invert(draw(2, 600)).save(jpeg)
    process = run("predict", "--server", server.address, "--image", png, "--image", jpeg, "--json")
    predictions = json.loads(process.stdout)["predictions"]
    assert [(one["source"], one["digit"]) for one in predictions] == [(str(png), 4), (str(jpeg), 2)]
    assert [one["label"] for one in predictions] == [None, None]


def test_evaluate_tells_scripts_all_it_found(run: Run, server: Any, mnist: Path) -> None:
    """What it says of 10,000 test images fits together, and with what was measured at export."""
    process = run(
        *("evaluate", "--server", server.address, "--data", mnist, "--mode", "batch", "--json"),
    )
    assert process.returncode == 0, process.stderr
    answer = json.loads(process.stdout)
    assert answer["images"] == np.sum(answer["confusion"]) == 10_000
    assert answer["correct"] == np.trace(answer["confusion"])
    assert answer["accuracy"] == answer["expected_accuracy"] == answer["correct"] / 10_000
    assert len(answer["mistakes"]) == 10_000 - answer["correct"]
    labels = load("mnist", mnist).labels
    assert all(labels[one["index"]] == one["label"] != one["digit"] for one in answer["mistakes"])
    latencies = answer["latency_ms"]
    assert 0 < latencies["p50"] <= latencies["p90"] <= latencies["p99"]
    assert answer["mode"] == "batch"


def test_evaluate_draws(run: Run, server: Any, mnist: Path, tmp_path: Path) -> None:
    """--plot leaves a picture beside what is printed, and batches find the same accuracy."""
    plot = tmp_path / "plot.png"
    process = run(
        *("evaluate", "--server", server.address, "--data", mnist),
        *("--mode", "batch", "--plot", plot),
    )
    assert process.returncode == 0, process.stderr
    assert "of 10,000 right" in process.stdout
    assert "Measured at export" in process.stdout
    with Image.open(plot) as picture:
        assert picture.width > 1000


def _hash(data: Path) -> str:
    return load("digits", data).sha256


def _evaluate(run: Run, address: str, data: Path, *more: str) -> Any:
    return run(
        *("evaluate", "--server", address, "--dataset", "digits", "--data", data),
        *("--mode", "batch", "--batch-size", "2", *more),
    )


def test_one_image_of_difference_fails(run: Run, liar: tuple[Liar, str], digits: Path) -> None:
    """A model that claims one image more than it gets right is caught: exit code 1."""
    service, address = liar
    service.model.dataset_sha256 = _hash(digits)
    service.model.test_accuracy = 3 / 5
    assert _evaluate(run, address, digits).returncode == 0
    service.model.test_accuracy = 4 / 5
    process = _evaluate(run, address, digits, "--json")
    assert process.returncode == 1
    assert "had 4 of these images right when it was exported, and now 3" in process.stderr
    assert json.loads(process.stdout)["correct"] == 3


@pytest.mark.parametrize("mode", ["unary", "batch", "stream"])
def test_ctrl_c_ends_it_at_once(project: Path, digits: Path, mode: str) -> None:
    """A real SIGINT is 130 without a trace, however long the server would have taken."""
    script = Script()
    script.held.clear()
    # Shells start what runs in the background with SIGINT ignored, and the child would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with serving(script) as address:
        command = [sys.executable, "-m", "client", "evaluate", "--server", address]
        command += ["--dataset", "digits", "--data", str(digits), "--mode", mode]
        process = subprocess.Popen(
            [*command, "--timeout", "3600"], cwd=project, stderr=subprocess.PIPE, text=True
        )
        until(lambda: script.requests)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said.strip()) == (130, "")


def test_another_data_set_is_said_and_not_compared(
    run: Run, liar: tuple[Liar, str], digits: Path
) -> None:
    """Where the model was trained on other data, there is nothing to compare with."""
    service, address = liar
    service.model.dataset_sha256 = MNIST_SHA256
    service.model.test_accuracy = 1
    process = _evaluate(run, address, digits)
    assert process.returncode == 0
    assert "trained on another data set" in process.stdout
    assert json.loads(_evaluate(run, address, digits, "--json").stdout)["expected_accuracy"] is None


def test_models_are_listed(run: Run, server: Any) -> None:
    """The bundled model is there, for people and for scripts."""
    assert "digitnet" in run("models", "--server", server.address).stdout
    answer = json.loads(run("models", "--server", server.address, "--json").stdout)
    assert set(answer["models"][0]) == set(pb.Model.DESCRIPTOR.fields_by_name)
    assert answer["models"][0]["default"] is True


def test_health_is_an_exit_code(run: Run, server: Any, liar: tuple[Liar, str]) -> None:
    """0 where it is SERVING, 3 where it is not, 1 for a model that is not there."""
    assert run("health", "--server", server.address, "--model", "digitnet").returncode == 0
    service, address = liar
    service.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    process = run("health", "--server", address, "--json")
    assert process.returncode == 3
    assert json.loads(process.stdout) == {"server": address, "model": "", "status": "NOT_SERVING"}
    process = run("health", "--server", server.address, "--model", "none")
    assert (process.returncode, process.stdout) == (1, "")
    assert "has no model 'none'" in process.stderr


def test_the_environment_names_the_server(run: Run, server: Any) -> None:
    """MNIST_CLIENT_SERVER and its like are the flags' twins, and a flag goes before."""
    environment = {"MNIST_CLIENT_SERVER": server.address, "MNIST_CLIENT_TIMEOUT": "9"}
    assert run("health", **environment).returncode == 0
    assert run("health", "--server", "127.0.0.1:1", **environment).returncode == 3
    assert run("predict", "--samples", MNIST_CLIENT_MODEL="none", **environment).returncode == 1


@pytest.mark.parametrize("command", [("predict", "--samples"), ("models",), ("health",)])
def test_nobody_there_says_how_to_start_one(
    run: Run, nobody: str, command: tuple[str, ...]
) -> None:
    """Exit code 3 and one sentence with both ways out."""
    process = run(*command, "--server", nobody, "--json")
    assert (process.returncode, process.stdout) == (3, "")
    assert process.stderr == (
        f"Error: No server answers at {nobody}: start one with `make serve`, or name another with "
        "--server.\n"
    )


def test_a_server_that_never_answers_is_given_up(run: Run, silence: str) -> None:
    """Exit code 3 and a sentence that names --timeout."""
    process = run("health", "--server", silence, "--timeout", "0.5")
    assert process.returncode == 3
    assert "gave no answer within 0.5 s" in process.stderr
    assert "--timeout" in process.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ((), 2, "Say what to recognise"),
        (("--index", "10000"), 2, "take one of 0 to 9999"),
        (("--index", "-1"), 2, "take one of 0 to 9999"),
        (("--random", "10001"), 2, "There are 10000 test images"),
        (("--samples", "--timeout", "0"), 2, "--timeout"),
        (("--samples", "--tls-cert", "Makefile"), 2, "needs its key"),
        (("--samples", "--tls-ca", "Makefile"), 2, "holds no certificates"),
        (("--samples", "--tls-ca", "none.pem"), 2, "none.pem"),
        (("--samples", "--model", "none"), 1, "none"),
        (("--samples", "--version", "99"), 1, "99"),
        (("--image", "Makefile"), 1, "Makefile: The file is no PNG, JPEG or WebP picture"),
        (("--image", "none.png"), 1, "none.png: No such file"),
    ],
)
def test_what_predict_refuses(
    run: Run, server: Any, mnist: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    """A wrong use is 2, a wrong input 1, and each is said in a sentence."""
    process = run("predict", "--server", server.address, "--data", mnist, *arguments)
    assert (process.returncode, process.stdout) == (code, "")
    assert sentence in process.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--plot", "plot.xyz"), 2, "must end in one of .png, .pdf, .svg"),
        (("--plot", "none/plot.png"), 2, "there is no folder none"),
        (("--data", "none", "--dataset", "mnist"), 1, "run `make data`, or set MNIST_SOURCE"),
        (("--mode", "batch", "--batch-size", "1000"), 1, "at most 256"),
    ],
)
def test_what_evaluate_refuses(
    run: Run, server: Any, mnist: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    """A wrong use is 2, a wrong input 1, and each is said in a sentence."""
    process = run(
        *("evaluate", "--server", server.address, "--data", mnist, *arguments), MNIST_SOURCE=""
    )
    assert (process.returncode, process.stdout) == (code, "")
    assert sentence in process.stderr


def test_an_empty_picture_is_refused(run: Run, nobody: str, tmp_path: Path) -> None:
    """What shows nothing is refused before anyone is asked."""
    blank = tmp_path / "blank.png"
    Image.new("L", (50, 50), "white").save(blank)
    process = run("predict", "--server", nobody, "--image", blank)
    assert process.returncode == 1
    assert "blank.png: The picture shows nothing: draw a digit on it" in process.stderr


def test_help_tells_the_exit_codes(run: Run) -> None:
    """Scripts can look up what to rely on."""
    process = run("--help")
    assert "Exit codes: 0 fine; 1 " in process.stdout


def test_a_narrow_terminal_cuts_no_number(run: Run, liar: tuple[Liar, str], digits: Path) -> None:
    """The confusion matrix keeps its columns in 40 characters too."""
    process = run(
        *("evaluate", "--server", liar[1], "--dataset", "digits", "--data", digits),
        *("--mode", "batch"),
        COLUMNS="40",
    )
    matrix = process.stdout.splitlines()[2:12]
    assert [row.split()[4] for row in matrix] == ["·", "·", "·", "3", "1", "1", "·", "·", "·", "·"]
    assert "…" not in process.stdout
