"""Several workers on one port: starts them, restarts one that dies, stops them all.

Each worker is a fresh process, so nothing is ever forked after gRPC or
onnxruntime has started; this one imports neither. The kernel spreads connections
over the workers, which listen on the same port with SO_REUSEPORT.

A worker takes its configuration from the environment, where every flag has a
twin, and says "serving" on stdout. Its stdin stays open as long as the supervisor
lives: should that be killed, the workers read its end and leave too.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import structlog
from prometheus_client import Counter

from server import exporter
from server.config import Config
from server.errors import StartError

# Seconds before a worker that died is started again: at once the first time,
# then twice as long each time, until one has lived for a while.
BACKOFF_FIRST, BACKOFF_MOST = 0.1, 10.0
LIVED_LONG_ENOUGH = 30.0

log = structlog.get_logger()


def run(config: Config) -> None:
    """Serves with `config.workers` processes until SIGTERM or SIGINT.

    Raises:
        StartError: the port cannot be bound, there is nowhere to write metrics to, or a worker
            ends before any has served.
    """
    with reserve_port(config) as port, _temporary_folder() as metrics_files:
        # Read by prometheus_client when the workers import it.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_files
        config = replace(config, port=port.getsockname()[1])
        asyncio.run(Supervisor(config, Path(metrics_files)).run())


def reserve_port(config: Config) -> socket.socket:
    """Returns a socket that holds the port for the workers, itself not listening.

    Raises:
        StartError: the port cannot be bound.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM
        )[0]
        # Without SO_REUSEPORT first: with it, a stranger's port could be shared.
        with socket.socket(family, kind) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
        holder = socket.socket(family, kind)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(address)
    except OSError as error:
        raise StartError(
            f"Cannot listen on {config.host}:{config.port}: it is in use, or no address of this "
            "machine; choose another with --port (0 finds a free one) or --host."
        ) from error
    return holder


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory()
    except OSError as error:
        raise StartError(
            "Workers need a temporary folder for their metrics, and none can be written: mount one "
            "at /tmp, or name one with TMPDIR."
        ) from error


class Supervisor:
    """Keeps `config.workers` workers running.

    Args:
        config: with the port that is reserved.
        metrics_files: where the workers write their metrics.
    """

    def __init__(self, config: Config, metrics_files: Path) -> None:
        self._config = config
        self._metrics_files = metrics_files
        self._stopping = asyncio.Event()
        self._running: set[asyncio.subprocess.Process] = set()
        self._serving = 0  # workers that came up, ever
        self._failure: StartError | None = None
        self._registry = exporter.of_workers(metrics_files)
        self._deaths = Counter(
            "mnist_worker_deaths",
            "Workers that died and were started again.",
            registry=self._registry,
        )

    async def run(self) -> None:
        """Returns when all workers have left.

        Raises:
            StartError: a worker ended before any had served.
        """
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stopping.set)
        if self._config.metrics_port is not None:
            exporter.start(self._config.host, self._config.metrics_port, self._registry)
        log.info("starting workers", workers=self._config.workers)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._config.workers):
                group.create_task(self._keep_one_running())
            await self._stopping.wait()
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                    process.terminate()
        if self._failure:
            raise self._failure
        log.info("all workers stopped")

    async def _keep_one_running(self) -> None:
        backoff = BACKOFF_FIRST
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run_one()
            if self._stopping.is_set():
                return
            if not self._serving:
                self._failure = StartError("A worker could not start: the log above says why.")
                self._stopping.set()
                return
            if time.monotonic() - started > LIVED_LONG_ENOUGH:
                backoff = BACKOFF_FIRST
            self._deaths.inc()
            log.error("worker died", exit_code=code, restart_in_seconds=backoff)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff)
            backoff = min(2 * backoff, BACKOFF_MOST)

    async def _run_one(self) -> int:
        """Runs a worker to its end and returns its exit code; negative for a signal."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server", "--worker"),
            env=os.environ | self._config.environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._running.add(process)
        if self._stopping.is_set():  # since it was asked for
            process.terminate()
        assert process.stdout is not None  # noqa: S101 - asked for above; tells mypy
        if await process.stdout.readline():
            self._serving += 1
            if self._serving == self._config.workers:
                log.info("all workers serving", workers=self._config.workers)
        code = await process.wait()
        self._running.discard(process)
        exporter.forget(process.pid, self._metrics_files)
        return code
