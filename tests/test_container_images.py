"""The images: small, hardened, and as good at serving, leaving and failing as the server is."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from callers import calling
from conftest import until
from containers import (
    BASE,
    CLIENT,
    DOCKER,
    GATEWAY,
    SERVER,
    docker,
    is_healthy,
    logs,
    readable,
    state,
)

from client import DigitClient
from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub

pytestmark = [pytest.mark.container, pytest.mark.usefixtures("images")]

HARDENED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--user", "4242:4242", "--memory", "128m", "--memory-swap", "128m", "--pids-limit", "512"),
)

Run = Callable[..., str]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts servers' containers, which are removed at the end; returns each one's id."""
    started: list[str] = []

    def start(*flags: str) -> str:
        flags = ("--publish", "127.0.0.1::50051", *flags)
        started.append(docker("run", "--detach", *flags, SERVER))
        until(lambda: "serving" in logs(started[-1]))
        return started[-1]

    yield start
    if started:
        docker("rm", "--force", "--volumes", *started)


def address(container: str, port: int = 50051) -> str:
    """Where a port of it is published."""
    return docker("port", container, str(port)).splitlines()[0]


def config(image: str) -> dict[str, Any]:
    """What a container of an image gets."""
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]["Config"]
    return found


def layers(image: str) -> list[int]:
    """The bytes of each of an image's layers, uncompressed."""
    sizes = docker("history", "--human=false", "--format", "{{.Size}}", image)
    return [int(size) for size in sizes.splitlines()]


def test_the_servers_image_is_small() -> None:
    """What the project adds to Python's image is at most 180 MB."""
    assert sum(layers(SERVER)) - sum(layers(BASE)) <= 180e6


@pytest.mark.parametrize("image", [SERVER, CLIENT, GATEWAY])
def test_an_image_runs_as_nobody_and_says_what_it_is(image: str) -> None:
    """A fixed user, no shell in between, telemetry off, OCI's labels."""
    found = config(image)
    assert found["User"] == "10001:10001"
    assert found["Entrypoint"][0] == "python"
    assert "ORT_DISABLE_TELEMETRY=1" in found["Env"]
    labels = {label.removeprefix("org.opencontainers.image.") for label in found["Labels"]}
    assert {"title", "description", "licenses", "revision", "version"} <= labels


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        (SERVER, {"proto", "server", "models"}),
        (CLIENT, {"proto", "client"}),
        (GATEWAY, {"proto", "client", "gateway"}),
    ],
)
def test_an_image_holds_its_own_part_only(image: str, parts: set[str]) -> None:
    """Nothing else of ours, no torch, no installer, no compiler, no cache."""
    look = ("/app", "/opt", "/root", "/usr/bin", "-not", "-type", "d")
    found = docker("run", "--rm", "--user", "root", "--entrypoint", "find", image, *look)
    paths = [Path(path) for path in found.splitlines()]
    assert {path.parts[2] for path in paths if path.is_relative_to("/app")} == parts
    names = {part for path in paths if path.is_relative_to("/opt") for part in path.parts}
    assert not {"torch", "onnx", "pip", "setuptools", "pytest"} & names
    assert not {Path("/usr/bin") / name for name in ("cc", "gcc", "g++", "make")} & set(paths)
    assert not [path for path in paths if ".cache" in path.parts]


def test_a_container_becomes_healthy(run: Run) -> None:
    """Docker says so, since the image brings its own check."""
    container = run()
    until(lambda: is_healthy(container))


def test_the_port_may_be_chosen_as_hosting_platforms_do(run: Run) -> None:
    """PORT moves the server, and its health check with it."""
    container = run("--env", "PORT=8080", "--publish", "127.0.0.1::8080")
    with DigitClient(address(container, 8080)) as digits:
        assert digits.predict(np.zeros(784)).model == "digitnet"
    until(lambda: is_healthy(container))


def test_it_needs_next_to_nothing(run: Run) -> None:
    """Under load it is content with 128 MB, no write, no capability and a user nobody knows."""
    container = run(*HARDENED)
    with calling(sys.executable, "-m", "tests.callers", address(container)) as outcomes:
        until(lambda: logs(container).count("PredictionService/Predict") > 300)
    assert {outcome.split()[0] for outcome in outcomes} == {"1"}
    docker("stop", container)
    assert (state(container)["ExitCode"], state(container)["OOMKilled"]) == (0, False)


def test_stopping_lets_a_call_finish(run: Run) -> None:
    """`docker stop` ends a container with 0, once a stream that is under way has its answers."""
    container = run()
    request = pb.PredictStreamRequest(pixels=np.zeros(784))
    leaving = threading.Event()

    def requests() -> Iterator[pb.PredictStreamRequest]:
        yield request
        leaving.wait()
        yield request

    with grpc.insecure_channel(address(container)) as channel:
        answers = PredictionServiceStub(channel).PredictStream(requests())
        assert next(answers).WhichOneof("outcome") == "prediction"
        with subprocess.Popen([DOCKER, "stop", container], stdout=subprocess.PIPE) as stop:
            until(lambda: "draining" in logs(container))
            assert stop.poll() is None
            leaving.set()
            assert [answer.WhichOneof("outcome") for answer in answers] == ["prediction"]
    assert state(container)["ExitCode"] == 0


def fails_to_start(*flags: str) -> str:
    """Runs a container that cannot serve; returns the last line that it says."""
    process = subprocess.run(
        [DOCKER, "run", "--rm", *HARDENED, *flags, SERVER],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode in {1, 2}, process.stderr
    assert "Traceback" not in process.stderr
    return process.stderr.splitlines()[-1]


def test_without_models_it_does_not_start(tmp_path: Path) -> None:
    """An empty mount ends in a sentence that says what to do."""
    said = fails_to_start("--volume", f"{readable(tmp_path)}:/app/models:ro")
    assert re.match("Error: No version of model 'digitnet' .* can be served: make one", said)


def test_with_a_corrupt_model_it_does_not_start(bundled_models: Path, tmp_path: Path) -> None:
    """So does one whose only version is damaged."""
    models = shutil.copytree(bundled_models, tmp_path / "models")
    (models / "digitnet/1/model.onnx").write_bytes(b"no onnx")
    said = fails_to_start("--volume", f"{readable(models)}:/app/models:ro")
    assert re.match("Error: No version of model 'digitnet' .* can be served: make one", said)


def test_with_no_folder_of_models_it_does_not_start() -> None:
    """A folder that is not there is named."""
    said = fails_to_start("--env", "MNIST_SERVER_MODELS=/nowhere")
    assert re.match("Error: .*--models.* '/nowhere' does not exist", said)


def test_with_nowhere_to_write_to_workers_do_not_start() -> None:
    """Several workers need a temporary folder, and say so; one needs none."""
    said = fails_to_start("--env", "MNIST_SERVER_WORKERS=2")
    assert re.match("Error: Workers need a temporary folder .* mount one at /tmp", said)


def test_on_a_taken_port_it_does_not_start(run: Run) -> None:
    """Where another has the port, it says so."""
    said = fails_to_start("--network", f"container:{run()}")
    assert re.match("Error: Cannot listen on 0.0.0.0:50051: it is in use", said)


def test_with_an_unreadable_key_it_does_not_start(certificates: Path, tmp_path: Path) -> None:
    """A key that is not the user's to read is named."""
    folder = shutil.copytree(certificates, tmp_path / "tls")
    mount = f"{readable(folder)}:/tls:ro"
    (folder / "server.key").chmod(0)
    env = ("MNIST_SERVER_TLS_CERT=/tls/server.pem", "MNIST_SERVER_TLS_KEY=/tls/server.key")
    said = fails_to_start("--volume", mount, "--env", env[0], "--env", env[1])
    assert re.match("Error: .*--tls-key.* '/tls/server.key' is not readable", said)
