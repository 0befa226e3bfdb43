"""Real things for the tests: the data, a checkout to work in, servers on free ports."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Before any test module imports onnxruntime: see server/__init__.py.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


@pytest.fixture(scope="session")
def project() -> Path:
    """The repository's root, from which every command is run."""
    return ROOT


@pytest.fixture(scope="session")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that holds MNIST/raw; skips where MNIST is not at hand, fails in CI."""
    if (ROOT / "data/MNIST/raw/t10k-labels-idx1-ubyte").exists():
        return ROOT / "data"
    if "MNIST_SOURCE" not in os.environ:
        reason = "MNIST is not here: run `make data`, or set MNIST_SOURCE"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("data")
    command = [sys.executable, "-m", "training", "data", "--dataset", "mnist", "--data", str(root)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return root


@pytest.fixture(scope="session")
def bundled_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with the committed model alone, whatever else was exported here."""
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "models/digitnet/1", models / "digitnet/1")
    return models


@dataclass(frozen=True)
class Server:
    """A running `python -m server`."""

    process: subprocess.Popen[str]
    address: str
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def stop(self, timeout: float = 30) -> int:
        """Sends SIGTERM and returns the exit code."""
        self.process.terminate()
        return self.process.wait(timeout)


StartServer = Callable[..., Server]


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """A factory of servers on free ports; what it starts is stopped at the end of the session."""
    started: list[Server] = []

    def start(*flags: str, env: dict[str, str] | None = None) -> Server:
        log = tmp_path_factory.mktemp("server") / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "server", "--port", "0", *flags],
                cwd=ROOT,
                env=os.environ | (env or {}),
                stderr=file,
                text=True,
            )
        address = _wait_until_serving(process, log)
        started.append(Server(process, address, log))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="session")
def server(start_server: StartServer, bundled_models: Path) -> Server:
    """A server of the bundled model."""
    return start_server("--models", str(bundled_models))


def _wait_until_serving(process: subprocess.Popen[str], log: Path) -> str:
    """Follows the log, whose end is the process's end, so there is nothing to time."""
    tail = shutil.which("tail")
    assert tail is not None
    command = [tail, "--follow", "--lines=+1", f"--pid={process.pid}", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follow:
        assert follow.stdout is not None
        address = ""
        for line in follow.stdout:
            if match := re.search(r'address(?:=|": ")([^\s"]+)', line):
                address = match[1]
            if re.search(r"\bserving\b", line):
                follow.terminate()
                return address
    raise AssertionError(f"the server did not start:\n{log.read_text()}")
