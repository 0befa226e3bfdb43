"""What else a server does while it is loaded, or left alone: health, memory, CPU."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

# Between two questions after health, in seconds: few, so that they are no load of their own.
PAUSE = 0.05


@contextmanager
def asking_health(port: int) -> Iterator[list[float]]:
    """Asks a server after its health until the block ends; yields what each answer took, in ms.

    Raises:
        grpc.RpcError: health did not answer within 10 s.
    """
    took: list[float] = []
    failed: list[grpc.RpcError] = []
    ended = threading.Event()

    def ask() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while not ended.wait(PAUSE):
                started = time.perf_counter()
                try:
                    health.Check(health_pb2.HealthCheckRequest(), timeout=10)
                except grpc.RpcError as error:
                    failed.append(error)
                    return
                took.append((time.perf_counter() - started) * 1e3)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield took
    finally:
        ended.set()
        thread.join()
    if failed:
        raise failed[0]


def cpu_share(pid: int, seconds: float) -> float:
    """Returns what share of one core a process takes over some time."""
    before = cpu_seconds(pid)
    time.sleep(seconds)  # what is measured
    return (cpu_seconds(pid) - before) / seconds


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time that a process has taken so far."""
    # The fields behind the command's name, from proc(5): utime and stime, in ticks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
