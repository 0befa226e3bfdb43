"""Several processes on one port: they share the work, and the death of one is not noticed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from callers import asking, digit_client
from conftest import (
    Server,
    StartServer,
    connections,
    log_line,
    scrape,
    start_and_fail,
    until,
)

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub
from server import cpus

REQUEST = pb.PredictRequest(pixels=np.zeros(784))
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture
def server(start_server: StartServer, bundled_models: Path) -> Server:
    """A supervisor with two workers that answer."""
    flags = ("--models", str(bundled_models), "--workers", "2")
    server = start_server(*flags, "--metrics-port", "0", "--log-format", "json")
    log_line(server, "all workers serving")
    return server


def workers(server: Server) -> list[int]:
    """The process ids of its workers."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def events(server: Server, name: str) -> list[dict[str, Any]]:
    """Its log's entries of one name."""
    entries = map(json.loads, server.log.read_text().splitlines())
    return [entry for entry in entries if entry["event"] == name]


def has_left(pid: int) -> bool:
    """Whether a process has ended; it may still wait to be reaped by whoever adopted it."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def connections_of(server: Server, pid: int) -> int:
    """How many of a server's connections one of its workers has."""
    open_files = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return sum(f"socket:[{inode}]" in open_files for inode in connections(server))


def wait_for(stack: ExitStack) -> Iterator[pb.PredictStreamRequest]:
    """Sends nothing, and ends with the stack."""
    ended = threading.Event()
    stack.callback(ended.set)
    ended.wait()
    yield from ()


def kill(server: Server, pid: int) -> None:
    """Kills a worker, and waits until another one answers in its place."""
    serving = len(events(server, "serving"))
    os.kill(pid, signal.SIGKILL)
    until(lambda: len(events(server, "serving")) == serving + 1)


def test_they_share_the_connections_and_count_together(server: Server) -> None:
    """Both have some of many connections, and /metrics has the sum, also when one has died."""
    answered = (
        'mnist_requests_total{code="OK",method="/mnist.v1.PredictionService/Predict",'
        'model="digitnet"}'
    )
    loaded = 'mnist_model_loads_total{model="digitnet",outcome="loaded"}'
    streams = []
    with ExitStack() as stack:
        for _ in range(32):
            channel = stack.enter_context(grpc.insecure_channel(server.address, OWN_CONNECTION))
            stub = PredictionServiceStub(channel)
            stub.Predict(REQUEST)
            streams.append(stub.PredictStream(wait_for(stack)))
        until(lambda: scrape(server)["mnist_in_flight"] == 32)
        pid, other = workers(server)
        shares = [connections_of(server, pid), connections_of(server, other)]
        assert sum(shares) == 32
        assert all(shares)
        samples = scrape(server)
        assert (samples[answered], samples[loaded]) == (32, 2)
        kill(server, pid)
        samples = scrape(server)
        assert (samples[answered], samples[loaded]) == (32, 3)
        assert samples["mnist_in_flight"] == shares[1]


def test_the_death_of_a_worker_loses_no_call(server: Server) -> None:
    """The client's retries bridge it, when whichever worker is busiest is killed."""
    with digit_client(server.address) as ask, asking(ask, 4) as outcomes:
        for _ in range(3):
            answered = outcomes.total()
            until(lambda: outcomes.total() > answered + 100)  # noqa: B023 - called at once
            kill(server, max(workers(server), key=lambda pid: connections_of(server, pid)))
    assert {outcome.split()[0] for outcome in outcomes} == {"1"}


def test_a_worker_that_dies_is_replaced_with_patience(server: Server) -> None:
    """The first time almost at once, and each time after twice as long."""
    for _ in range(3):
        kill(server, workers(server)[-1])  # the youngest, so the same place each time
    assert scrape(server)["mnist_worker_deaths_total"] == 3
    deaths = events(server, "worker died")
    assert [death["exit_code"] for death in deaths] == [-9, -9, -9]
    assert [death["restart_in_seconds"] for death in deaths] == [0.1, 0.2, 0.4]


def test_their_log_lines_do_not_mix(project: Path, bundled_models: Path) -> None:
    """Each line is written at once, as a socket that keeps writes apart shows."""
    command = [sys.executable, "-m", "server", "--port", "0", "--workers", "2"]
    command += ["--models", str(bundled_models)]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = subprocess.Popen(command, cwd=project, stderr=theirs.fileno())
        writes = []
        while write := ours.recv(1 << 16):
            writes.append(write)
            if b"all workers serving" in write:
                process.terminate()
    assert process.wait() == 0
    assert b"all workers stopped" in writes[-1]
    assert [write.count(b"\n") for write in writes] == [1] * len(writes)


def test_sigterm_ends_all(server: Server) -> None:
    """The supervisor exits with 0 once its workers have drained and left."""
    pids = workers(server)
    assert server.stop() == 0
    assert all(has_left(pid) for pid in pids)
    assert len(events(server, "draining")) == len(events(server, "stopped")) == 2


@pytest.mark.parametrize(
    ("count", "first", "last"),
    [("1", "model loaded", "stopped"), ("2", "starting workers", "all workers stopped")],
)
def test_sigterm_at_the_start_is_obeyed(
    project: Path, bundled_models: Path, count: str, first: str, last: str
) -> None:
    """A server that is told to leave before it serves exits with 0 too."""
    command = [sys.executable, "-m", "server", "--port", "0", "--workers", count]
    with subprocess.Popen(
        [*command, "--models", str(bundled_models)], cwd=project, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert any(first in line for line in process.stderr)
        process.terminate()
        said = process.stderr.read()
        assert process.wait(30) == 0
    assert "Traceback" not in said
    assert last in said


def test_workers_do_not_outlive_their_supervisor(server: Server) -> None:
    """When it is killed without a word, they drain and leave, and so do its temporary files."""
    pids = workers(server)
    environment = Path(f"/proc/{pids[0]}/environ").read_text()
    found = re.search(r"\bPROMETHEUS_MULTIPROC_DIR=([^\0]+)", environment)
    assert found is not None
    metrics = Path(found[1])
    assert metrics.is_dir()
    server.process.kill()
    server.process.wait()
    until(lambda: all(has_left(pid) for pid in pids))
    assert len(events(server, "stopped")) == 2
    assert not metrics.exists()


def test_workers_that_cannot_start_end_it(tmp_path: Path) -> None:
    """Exit code 1, a sentence of the supervisor's, and the worker's own that says why."""
    code, said = start_and_fail("--workers", "2", "--models", str(tmp_path))
    assert code == 1
    assert "A worker could not start: the log above says why." in said
    assert "No version of model 'digitnet'" in said


@pytest.mark.parametrize("ours", ["1", "2"])
@pytest.mark.parametrize("theirs", ["1", "2"])
def test_a_port_in_use_is_not_shared_with_strangers(
    start_server: StartServer, bundled_models: Path, ours: str, theirs: str
) -> None:
    """Whether one or both would share it with workers, the second server is refused."""
    holder = start_server("--models", str(bundled_models), "--workers", theirs)
    port = holder.address.rpartition(":")[2]
    code, said = start_and_fail("--port", port, "--workers", ours)
    assert code == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in said
    assert holder.stop() == 0


def test_a_metrics_port_in_use_is_said(server: Server) -> None:
    """Exit code 1 and a sentence that names the flag, before any worker is started."""
    port = str(events(server, "exporting metrics")[0]["port"])
    code, said = start_and_fail("--workers", "2", "--metrics-port", port)
    assert code == 1
    assert f"Cannot export metrics on 127.0.0.1:{port}" in said
    assert "--metrics-port" in said
    assert "starting workers" not in said


def test_the_supervisor_has_no_thread_of_grpc_or_onnxruntime(server: Server) -> None:
    """It maps neither library, so nothing can ever be forked after they have started."""
    worker, supervisor = (
        Path(f"/proc/{pid}/maps").read_text() for pid in (workers(server)[0], server.pid)
    )
    for library in ("cygrpc", "onnxruntime"):
        assert library in worker
        assert library not in supervisor


def test_zero_is_a_worker_for_each_cpu(start_server: StartServer, bundled_models: Path) -> None:
    """--workers 0 starts as many as may be used here; one of them needs no supervisor."""
    server = start_server("--models", str(bundled_models), "--workers", "0")
    expected = cpus.available()
    assert len(workers(server)) == (expected if expected > 1 else 0)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "300000 100000"}, 3),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "50000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "20000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_a_containers_quota_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    """On eight CPUs, cgroup v2's and v1's limits leave the whole ones among them, at least one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert cpus.available(tmp_path) == expected


def test_affinity_counts(project: Path) -> None:
    """A process that is pinned to one CPU has one."""
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from server import cpus; print(cpus.available())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=project, text=True) == "1\n"
