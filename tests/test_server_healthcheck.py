"""The check that containers run: it says what the server says, over TLS too, and fails clearly."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import until


def check(address: str, **env: str) -> tuple[int, str]:
    """Runs it as in a container; returns its exit code and what it says."""
    process = subprocess.run(
        [sys.executable, "-m", "server.healthcheck"],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"MNIST_SERVER_PORT": address.rpartition(":")[2]} | env,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "Traceback" not in process.stderr
    return process.returncode, process.stdout + process.stderr


def test_a_serving_server_is_healthy(server: Any) -> None:
    """Exit code 0, and what the server says."""
    assert check(server.address) == (0, "SERVING\n")


def test_the_port_may_be_said_as_hosting_platforms_do(server: Any) -> None:
    """PORT does where MNIST_SERVER_PORT is not set."""
    port = server.address.rpartition(":")[2]
    assert check(server.address, MNIST_SERVER_PORT="", PORT=port) == (0, "SERVING\n")


@pytest.mark.parametrize("flags", [(), ("--tls-client-ca", "ca.pem")], ids=["tls", "mtls"])
def test_a_server_with_tls_is_healthy(
    start_server: Any, bundled_models: Path, certificates: Path, flags: tuple[str, ...]
) -> None:
    """It takes the server's own certificate, both to trust and to show."""
    env = {
        "MNIST_SERVER_TLS_CERT": str(certificates / "server.pem"),
        "MNIST_SERVER_TLS_KEY": str(certificates / "server.key"),
    }
    paths = [str(certificates / flag) if flag.endswith(".pem") else flag for flag in flags]
    server = start_server("--models", str(bundled_models), *paths, env=env)
    assert check(server.address, **env) == (0, "SERVING\n")


def test_a_server_without_its_model_is_not_healthy(
    start_server: Any, bundled_models: Path, tmp_path: Path
) -> None:
    """Exit code 1 where the server says NOT_SERVING."""
    models = shutil.copytree(bundled_models, tmp_path / "models")
    server = start_server("--models", str(models))
    shutil.rmtree(models / "digitnet")
    until(lambda: check(server.address) == (1, "NOT_SERVING\n"))


def test_nobody_there() -> None:
    """Where nothing listens, exit code 1 and a sentence."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        code, said = check(f":{free.getsockname()[1]}")
    assert code == 1
    assert said == "No answer from the server: [Errno 111] Connection refused.\n"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_somebody_else_there(answer: bytes) -> None:
    """Who does not speak as the server does is not taken for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        code, said = check(f":{listener.getsockname()[1]}")
        thread.join()
    assert code == 1
    assert "it does not answer as grpc.health.v1.Health should" in said
