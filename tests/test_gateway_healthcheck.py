"""The check that containers run: a gateway is healthy while it answers, whatever is behind it."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def check(project: Path, **env: str) -> tuple[int, str]:
    """Runs it as in a container; returns its exit code and what it says."""
    process = subprocess.run(
        [sys.executable, "-m", "gateway.healthcheck"],
        cwd=project,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "Traceback" not in process.stderr
    return process.returncode, process.stderr


@pytest.mark.parametrize("variable", ["MNIST_GATEWAY_PORT", "PORT"])
def test_a_gateway_is_healthy(project: Path, gateway: Any, variable: str) -> None:
    """It is found by the variables that set its port."""
    port = gateway.address.rstrip("/").rpartition(":")[2]
    assert check(project, **{"MNIST_GATEWAY_PORT": "", variable: port}) == (0, "")


def test_nobody_there(project: Path) -> None:
    """Where nothing listens, exit code 1 and a sentence."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = check(project, MNIST_GATEWAY_PORT=str(free.getsockname()[1]))
    assert found == (1, "No answer from the gateway: [Errno 111] Connection refused.\n")
