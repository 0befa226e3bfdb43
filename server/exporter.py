"""The page that Prometheus scrapes."""

from pathlib import Path

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, multiprocess, start_http_server

from server.errors import StartError

log = structlog.get_logger()


def of_workers(files: Path) -> CollectorRegistry:
    """Returns the sum of the metrics that workers write to files in a folder."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(files))
    return registry


def start(host: str, port: int, registry: CollectorRegistry = REGISTRY) -> None:
    """Serves /metrics from a thread of its own.

    Args:
        host: address to listen on.
        port: 0 takes a free one, and the log says which.
        registry: what to export; by default this process's own metrics.

    Raises:
        StartError: the port cannot be bound.
    """
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
    multiprocess.mark_process_dead(pid, str(worker_files))
