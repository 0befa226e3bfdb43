"""Servers to be measured, each alone on its CPU."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

SERVER_CPU, LOAD_CPU = 0, 1
MODELS = Path("runs/bench/models")  # where the Makefile exports `tiny`
OURS = ("--models", str(MODELS), "--default-model", "tiny", "--port")


@dataclass(frozen=True)
class Running:
    """A server that answers on 127.0.0.1."""

    port: int
    pid: int

    def resident_mib(self) -> float:
        """Returns the memory it has resident, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        if found is None:
            raise SystemExit(f"The server with pid {self.pid} has ended.")
        return int(found[1]) / 1024


def answers(port: int) -> None:
    """Returns once a gRPC server is ready on a port."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=30)


def connects(port: int) -> None:
    """Returns once anyone listens on a port.

    Raises:
        SystemExit: nobody did within 30 s.
    """
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)  # between two looks
        else:
            return
    raise SystemExit(f"Nobody listens on port {port}.")


@contextmanager
def running(module: str, *flags: str, ready: Callable[[int], None] = answers) -> Iterator[Running]:
    """Runs `python -m module *flags PORT` until the block ends, and waits until it is `ready`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, *flags, str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        os.sched_setaffinity(process.pid, {SERVER_CPU})  # its threads, still to come, inherit it
        ready(port)
        time.sleep(1)  # in which the models are loaded, as nobody measures yet
        try:
            yield Running(port, process.pid)
        finally:
            process.terminate()
