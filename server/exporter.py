"""The page that Prometheus scrapes."""

from pathlib import Path

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, multiprocess, start_http_server

from server.errors import StartError

log = structlog.get_logger()


def start(host: str, port: int, worker_files: Path | None = None) -> None:
    """Serves /metrics from a thread of its own.

    Args:
        host: address to listen on.
        port: 0 takes a free one, and the log says which.
        worker_files: where workers write theirs; None for this process's own metrics.

    Raises:
        StartError: the port cannot be bound.
    """
    registry = REGISTRY
    if worker_files is not None:
        registry = CollectorRegistry()
        # Untyped in prometheus_client, as is mark_process_dead below.
        multiprocess.MultiProcessCollector(registry, str(worker_files))  # type: ignore[no-untyped-call]
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise StartError(
            f"Cannot export metrics on {host}:{port} ({error.strerror}): choose another port "
            "with --metrics-port."
        ) from error
    log.info("exporting metrics", port=server.server_port)


def forget(pid: int, worker_files: Path) -> None:
    """Takes a worker that has ended out of the gauges; what it counted stays."""
    multiprocess.mark_process_dead(pid, str(worker_files))  # type: ignore[no-untyped-call]
