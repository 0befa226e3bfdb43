"""Real things for the tests: the data, a checkout to work in, servers on free ports."""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from containers import docker, engine_answers

ROOT = Path(__file__).parent.parent

# Before any test module imports onnxruntime: see server/__init__.py.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def until(condition: Callable[[], object]) -> None:
    """Waits for a state, not for a time; gives up after 30 s."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks


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


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of PEM files: `server` and `client` are signed by `ca`, `stranger` by `other`."""
    folder = tmp_path_factory.mktemp("certificates")
    for authority, names in (("ca", ("server", "client")), ("other", ("stranger",))):
        ca = trustme.CA()
        ca.cert_pem.write_to_path(folder / f"{authority}.pem")
        for name in names:
            issued = ca.issue_cert("localhost", "127.0.0.1")
            issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
            issued.private_key_pem.write_to_path(folder / f"{name}.key")
    return folder


@dataclass(frozen=True)
class Server:
    """A running `python -m server`, or `python -m gateway`."""

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
    address = r'address(?:=|": ")(?P<address>[^\s"]+)'
    yield from _starter("server", rf"(?s){address}.*\bserving\b", tmp_path_factory)


@pytest.fixture(scope="session")
def start_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """The same of gateways; an address is a URL."""
    yield from _starter("gateway", r"running on (?P<address>\S+)", tmp_path_factory)


def _starter(
    package: str, announcement: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartServer]:
    started: list[Server] = []

    def start(*flags: str, env: dict[str, str] | None = None) -> Server:
        log = tmp_path_factory.mktemp(package) / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", package, "--port", "0", *flags],
                cwd=ROOT,
                env=os.environ | (env or {}),
                stderr=file,
                text=True,
            )
        address = _wait_until_serving(process, log, announcement)
        started.append(Server(process, address, log))
        return started[-1]

    yield start
    running = [server for server in started if server.process.poll() is None]
    for server in running:
        server.process.terminate()
    for server in running:
        server.process.wait(30)


def start_and_fail(*flags: str) -> tuple[int, str]:
    """Runs a server that cannot start; returns its exit code and what it says."""
    process = subprocess.run(
        [sys.executable, "-m", "server", "--port", "0", *flags],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # without a terminal to ask on
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in process.stderr
    return process.returncode, process.stderr


def log_line(server: Server, event: str) -> str:
    """The first line of a server's log that has an event, waited for."""
    until(lambda: event in server.log.read_text())
    return next(line for line in server.log.read_text().splitlines() if event in line)


def connections(server: Server) -> dict[str, str]:
    """The callers' ends of a server's connections, by the inode of its own: proc(5), net/tcp."""
    port = f":{int(server.address.rpartition(':')[2]):04X}"
    tables = (Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    rows = (line.split() for table in tables for line in table.splitlines()[1:])
    established = "01"
    return {row[9]: row[2] for row in rows if row[1].endswith(port) and row[3] == established}


def scrape(server: Server) -> dict[str, float]:
    """What a server with --metrics-port says on /metrics, by sample."""
    port = re.search(r"port\W+(\d+)", log_line(server, "exporting metrics"))
    assert port is not None
    with urllib.request.urlopen(f"http://localhost:{port[1]}/metrics") as page:
        lines = page.read().decode().splitlines()
    return {
        sample: float(value)
        for sample, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


@pytest.fixture(scope="session")
def server(start_server: StartServer, bundled_models: Path) -> Server:
    """A server of the bundled model."""
    return start_server("--models", str(bundled_models))


@pytest.fixture(scope="session")
def gateway(start_gateway: StartServer, server: Server) -> Server:
    """A gateway before that server."""
    return start_gateway("--server", server.address)


@pytest.fixture(scope="session")
def engine() -> Iterator[None]:
    """A container engine, for one test session at a time; DOCKER_HERE may name what starts it."""
    with Path(tempfile.gettempdir(), "mnist-inference-containers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not engine_answers() and "DOCKER_HERE" in os.environ:
            with contextlib.suppress(OSError, subprocess.SubprocessError):  # asked again below
                subprocess.run([os.environ["DOCKER_HERE"]], capture_output=True, timeout=300)
        if not engine_answers():
            pytest.skip(
                "no container engine answers here: start Docker, or name a script that does with "
                "DOCKER_HERE"
            )
        yield


@pytest.fixture(scope="session")
def images(engine: None) -> None:  # noqa: ARG001 - to be there first
    """The server's, the client's and the gateway's image, built from this very checkout."""
    docker("compose", "--profile", "client", "--profile", "gateway", "build")


def _wait_until_serving(process: subprocess.Popen[str], log: Path, announcement: str) -> str:
    """Returns the address once the log says that it is served."""
    while True:
        ended = process.poll() is not None
        said = log.read_text()
        if announced := re.search(announcement, said):
            return announced["address"]
        assert not ended, f"it did not start:\n{said}"
        time.sleep(0.01)  # between two looks
