"""Builds the server, binds it, and takes it through its life: loading, serving, draining."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from proto.inference import grpc_service_pb2, grpc_service_pb2_grpc
from proto.mnist.v1 import prediction_service_pb2, prediction_service_pb2_grpc
from server import logs, metrics, signals
from server.arrivals import Arrivals
from server.config import Config
from server.errors import StartError
from server.interceptors import CallInterceptor
from server.model import IMAGE_PIXELS
from server.repository import Limits, Repository
from server.security import Certificates, TokenInterceptor, Tokens
from server.servicers.common import MAX_STREAMS, Core
from server.servicers.inference import InferenceServicer
from server.servicers.prediction import PredictionServicer
from server.servicers.reflection import ReflectionServicer
from server.threads import Pool

if TYPE_CHECKING:
    from server.tracing import Tracing

# Calls under way beyond those that may wait: they are being parsed, refused or answered.
# Above that, gRPC refuses by itself, which costs less but cannot say when to come back.
SPARE_THREADS = 256
# The caller's library holds back the rest, once it knows; what it has sent by then
# and is above this is refused, so it leaves room for a burst on a new connection.
CALLS_PER_CONNECTION = 1000
# gRPC's own default; the floor, so that a batch just above `max_batch` still
# gets the sentence that says so.
MIN_MESSAGE_BYTES = 4 * 1024 * 1024

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# How often the models directory is looked at, in seconds; a look takes about 60 µs.
WATCH_SECONDS = 1.0

# Either of them switches traces on.
TRACES_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

# How long callers get to hear of each step of leaving: this part of --drain-seconds,
# and at most so many seconds.
NOTICE_PART, NOTICE_MOST = 0.01, 1.0

INT_MAX = 2**31 - 1  # gRPC's "never"

# Those that need a model, and those that answer as long as the process does.
PREDICTING = (
    prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name,
    grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
)
ALWAYS = (health.SERVICE_NAME, reflection.SERVICE_NAME)

log = structlog.get_logger()


def _options(config: Config, *, share_port: bool) -> list[tuple[str, int]]:
    """Returns gRPC's settings: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html."""
    return [
        ("grpc.so_reuseport", int(share_port)),
        (
            "grpc.max_receive_message_length",
            max(MIN_MESSAGE_BYTES, 8 * config.max_batch * IMAGE_PIXELS),
        ),
        ("grpc.max_concurrent_streams", CALLS_PER_CONNECTION),
        # A caller that has silently gone is noticed within 80 seconds...
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # ... and one that pings more often than every 10 seconds is cut off.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
        # So that callers behind a balancer spread out again; calls under way are finished.
        ("grpc.max_connection_age_ms", round(config.max_connection_age * 1000) or INT_MAX),
    ]


def _tracing() -> Tracing | None:
    if not any(os.environ.get(endpoint) for endpoint in TRACES_ENDPOINTS):
        return None
    # Here, since it takes more time and memory to import than a server without it should spend.
    from server.tracing import Tracing  # noqa: PLC0415 - see above

    return Tracing()


class App:
    """One server process.

    Args:
        config: see `server.cli`.
        share_port: whether other processes of ours listen on the same port.

    Raises:
        StartError: the port cannot be bound, or a TLS or token file cannot be used.
    """

    def __init__(self, config: Config, *, share_port: bool = False) -> None:
        self._config = config
        arrivals = Arrivals()
        self._repository = Repository(
            config.models,
            config.default_model,
            Limits(config.max_batch, config.max_queue, config.intra_op_threads),
            arrivals,
            self._set_health,
        )
        self._tokens = Tokens(config.auth_token_file) if config.auth_token_file else None
        self._tracing = _tracing()
        self._access_log = logs.AccessLog()
        self._calls = CallInterceptor(arrivals, self._access_log, self._tracing)
        self._known: set[str] = set()
        self._health = health.HealthServicer()
        self._set_health()
        # Every call that may wait and every stream has a thread, so that it is the
        # queue's bound that refuses.
        threads = config.max_queue + MAX_STREAMS + SPARE_THREADS
        self._server = grpc.server(
            Pool(),  # type: ignore[arg-type] # all of an executor that gRPC uses
            interceptors=self._interceptors(),
            options=_options(config, share_port=share_port),
            maximum_concurrent_rpcs=threads,
        )
        core = Core(self._repository)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionServicer(core), self._server
        )
        grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            InferenceServicer(core, allow_model_control=config.allow_model_control), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(  # type: ignore[no-untyped-call] # generated without types
            ReflectionServicer((*PREDICTING, *ALWAYS)), self._server
        )
        self._address = self._bind()

    def run(self, on_serving: Callable[[], None] = lambda: None) -> None:
        """Serves until SIGTERM or SIGINT, which `signals` holds, then drains and returns.

        Args:
            on_serving: called when requests are answered.

        Raises:
            StartError: no version of the default model can be served.
        """
        # First the models: calls that come meanwhile wait in the port's backlog.
        self._repository.scan()
        if self._repository.newest(self._config.default_model) is None:
            name = self._config.default_model
            raise StartError(
                f"No version of model {name!r} in {self._config.models}/ can be served: make one "
                f"with `make train export ARCH={name}`, or name another with --default-model or "
                "--models."
            )
        self._server.start()
        log.info("listening", address=self._address)
        log.info("serving", default_model=self._config.default_model)
        on_serving()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        signals.wait()
        log.info("draining", seconds=self._config.drain_seconds)
        self._drain()
        if self._tracing:
            self._tracing.stop()
        log.info("stopped")

    def _drain(self) -> None:
        """Lets callers go in steps, so that few calls are left when gRPC stops.

        Those that it has received by then but not handed over would be CANCELLED,
        which callers seldom retry.
        """
        notice = min(NOTICE_PART * self._config.drain_seconds, NOTICE_MOST)
        deadline = time.monotonic() + self._config.drain_seconds
        self._health.enter_graceful_shutdown()  # who watches it goes elsewhere
        time.sleep(notice)  # the notice itself: nothing tells when all callers have heard
        self._calls.refuse()  # who retries pauses
        time.sleep(notice)  # as above, of those that do not watch health
        self._server.stop(max(0.0, deadline - time.monotonic())).wait()

    def _interceptors(self) -> list[grpc.ServerInterceptor]:
        if self._tokens is None:
            return [self._calls]
        return [TokenInterceptor(self._tokens, self._access_log), self._calls]

    def _bind(self) -> str:
        config = self._config
        host = f"[{config.host}]" if ":" in config.host else config.host
        address = f"{host}:{config.port}"
        try:
            if config.tls_cert and config.tls_key:
                certificates = Certificates(config.tls_cert, config.tls_key, config.tls_client_ca)
                port = self._server.add_secure_port(address, certificates.credentials())
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartError(
                f"Cannot listen on {address}: it is in use, or no address of this machine; "
                "choose another with --port (0 finds a free one) or --host."
            ) from error
        return f"{host}:{port}"

    def _watch(self) -> None:
        """Follows models and tokens: by polling, which works on every kind of volume."""
        while True:
            time.sleep(WATCH_SECONDS)  # between two looks
            metrics.settle()
            if self._tokens:
                self._tokens.refresh()
            try:
                self._repository.scan()
            except Exception:  # whatever it is, the next scan may do better
                log.exception("the models directory could not be scanned")

    def _set_health(self) -> None:
        """Says SERVING for what can be answered now; before the port opens, that is no model.

        A model that was removed stays known, as NOT_SERVING.
        """
        ready = {entry.name for entry in self._repository.entries() if entry.served}
        self._known |= {entry.name for entry in self._repository.entries()}
        for name in self._known:
            self._health.set(f"models/{name}", SERVING if name in ready else NOT_SERVING)
        for service in ("", *PREDICTING):
            default_ready = self._config.default_model in ready
            self._health.set(service, SERVING if default_ready else NOT_SERVING)
        for service in ALWAYS:
            self._health.set(service, SERVING)
