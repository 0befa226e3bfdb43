"""Builds the server, binds it, and takes it through its life: loading, serving, draining."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from proto.mnist.v1 import prediction_service_pb2, prediction_service_pb2_grpc
from server import logs
from server.config import Config
from server.interceptors import CallInterceptor
from server.model import IMAGE_PIXELS
from server.repository import Limits, Repository
from server.servicers import PredictionServicer

# Streams hold a thread each for as long as they are open.
STREAM_THREADS = 64
# gRPC's own default; the floor, so that a batch just above `max_batch` still
# gets the sentence that says so.
MIN_MESSAGE_BYTES = 4 * 1024 * 1024

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# How often the models directory is looked at, in seconds; a look takes about 60 µs.
WATCH_SECONDS = 1.0

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}

SERVICES = (
    prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name,
    health.SERVICE_NAME,
    reflection.SERVICE_NAME,
)

log = structlog.get_logger()


class StartError(Exception):
    """The server cannot start; its message says what to do."""


class App:
    """One server process.

    Args:
        config: see `server.cli`.

    Raises:
        StartError: the port cannot be bound.
    """

    def __init__(self, config: Config) -> None:
        # Blocked before any thread starts, so in all of them, and waited for in
        # `run`: a handler could interrupt anything, and deadlock with it.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        self._config = config
        self._repository = Repository(
            config.models,
            config.default_model,
            Limits(config.max_batch, config.max_queue, config.intra_op_threads),
        )
        self._known: set[str] = set()
        self._health = health.HealthServicer()
        self._set_health()
        # Every call that may wait has a thread to wait in, so that the queue's
        # bound is the one that refuses, and health always finds a free one.
        threads = config.max_queue + STREAM_THREADS
        self._server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="call"),
            interceptors=[CallInterceptor(logs.AccessLog())],
            options=[
                ("grpc.so_reuseport", 0),
                (
                    "grpc.max_receive_message_length",
                    max(MIN_MESSAGE_BYTES, 8 * config.max_batch * IMAGE_PIXELS),
                ),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionServicer(self._repository, config.max_batch), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(SERVICES, self._server)
        self._address = self._bind()

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then drains; returns when all is done.

        Raises:
            StartError: no version of the default model can be served.
        """
        if self._config.metrics_port is not None:
            self._export_metrics(self._config.metrics_port)
        self._server.start()
        log.info("listening", address=self._address)
        self._repository.scan()
        if self._repository.newest(self._config.default_model) is None:
            self._server.stop(None)
            raise StartError(
                f"No version of model {self._config.default_model!r} in "
                f"{self._config.models}/ can be served: run `make train export`, or name "
                "another with --models or --default-model."
            )
        self._set_health()
        log.info("serving", default_model=self._config.default_model)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        signal.sigwait(STOP_SIGNALS)
        log.info("draining", seconds=self._config.drain_seconds)
        self._health.enter_graceful_shutdown()
        self._server.stop(self._config.drain_seconds).wait()
        log.info("stopped")

    def _bind(self) -> str:
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        address = f"{host}:{self._config.port}"
        try:
            return f"{host}:{self._server.add_insecure_port(address)}"
        except RuntimeError as error:
            raise StartError(
                f"Cannot listen on {address}: it is in use, or no address of this machine; "
                "choose another with --port (0 finds a free one) or --host."
            ) from error

    def _export_metrics(self, port: int) -> None:
        try:
            exporter, _ = start_http_server(port, self._config.host)
        except OSError as error:
            raise StartError(
                f"Cannot export metrics on {self._config.host}:{port} ({error.strerror}): choose "
                "another port with --metrics-port."
            ) from error
        log.info("exporting metrics", port=exporter.server_port)

    def _watch(self) -> None:
        """Follows the models directory: by polling, which works on every kind of volume."""
        while True:
            time.sleep(WATCH_SECONDS)
            try:
                if self._repository.scan():
                    self._set_health()
            except Exception:  # whatever it is, the next scan may do better
                log.exception("the models directory could not be scanned")

    def _set_health(self) -> None:
        """Says SERVING for what can be answered now; the first time, before the port opens, none.

        A model that was removed stays known, as NOT_SERVING.
        """
        ready = {entry.name for entry in self._repository.entries() if entry.served}
        self._known |= {entry.name for entry in self._repository.entries()}
        for name in self._known:
            self._health.set(f"models/{name}", SERVING if name in ready else NOT_SERVING)
        for service in ("", *SERVICES):
            default_ready = self._config.default_model in ready
            self._health.set(service, SERVING if default_ready else NOT_SERVING)
