"""Traces of the calls, sent to an OpenTelemetry collector.

Imported where one is configured and nowhere else: see `server.app`. The standard
variables apply, such as OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import logging
import threading
import time

import grpc
import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.batcher import Work
from server.calls import Call
from server.errors import StartError

# How long a stopping server waits for a collector to take the last spans, in seconds.
FLUSH_SECONDS = 5.0
# How often the log repeats what is wrong with the collector, in seconds.
COMPLAINT_SECONDS = 60.0

# The codes that are the server's fault:
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
SERVER_ERRORS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}

log = structlog.get_logger()


class Trace:
    """One call's span and its children; every time is on the clock of `time.perf_counter`.

    Args:
        tracer: makes the children.
        span: the call's.
        epoch: what to add to that clock for Unix time, in nanoseconds.
    """

    __slots__ = ("_answered", "_context", "_epoch", "_span", "_tracer")

    def __init__(self, tracer: Tracer, span: Span, epoch: int) -> None:
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span, Context())
        self._epoch = epoch
        self._answered: float | None = None

    def answered(self, work: Work) -> None:
        """Adds `queue` and `inference`, a run that batch-mates may share."""
        self._answered = time.perf_counter()
        run = work.created + work.queue_seconds
        self._add("queue", work.created, run)
        self._add("inference", run, run + work.run_seconds)

    def serialised(self) -> None:
        """Adds `serialisation`, from the answers in the call's hands to the response's bytes."""
        if self._answered is not None:
            self._add("serialisation", self._answered, time.perf_counter())
            self._answered = None

    def end(self, call: Call) -> None:
        """Ends the call's span with what is known of it now."""
        self._span.set_attributes(
            {
                "rpc.grpc.status_code": grpc.StatusCode[call.code].value[0],
                "mnist.model": call.model,
                "mnist.model_version": call.version,
                "mnist.images": call.images,
            }
        )
        if grpc.StatusCode[call.code] in SERVER_ERRORS:
            self._span.set_status(StatusCode.ERROR)
        self._span.end(_unix(call.started + call.seconds, self._epoch))

    def _add(self, name: str, start: float, end: float) -> None:
        span = self._tracer.start_span(name, self._context, start_time=_unix(start, self._epoch))
        span.end(_unix(end, self._epoch))


class Tracing:
    """Sends spans in the background; what the collector does not take is dropped.

    Raises:
        StartError: the variables contradict each other.
    """

    def __init__(self) -> None:
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(_Complaints())
        logger.propagate = False
        try:
            processor = BatchSpanProcessor(OTLPSpanExporter())
        except ValueError as error:
            raise StartError(
                f"Traces cannot be exported: {error} Check the variables OTEL_BSP_*."
            ) from error
        configured = OTELResourceDetector().detect()
        resource = Resource.create({"service.name": "mnist-inference", **configured.attributes})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("server")
        self._propagator = TraceContextTextMapPropagator()
        log.info("exporting traces")

    def follow(self, call: Call) -> Trace | None:
        """Starts a call's span, below the caller's own where its metadata names one.

        Returns:
            None where the caller or the sampler does not want it recorded.
        """
        epoch = time.time_ns() - time.perf_counter_ns()
        service, _, method = call.method[1:].partition("/")
        span = self._tracer.start_span(
            call.method[1:],
            self._propagator.extract(dict(call.metadata)),
            SpanKind.SERVER,
            # https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/
            {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "mnist.request_id": call.request_id,
            },
            start_time=_unix(call.started, epoch),
        )
        return Trace(self._tracer, span, epoch) if span.is_recording() else None

    def stop(self) -> None:
        """Sends what is left, unless the collector keeps us waiting."""
        # The exporter's own patience may be longer than whoever stops us has.
        flush = threading.Thread(target=self._provider.shutdown, name="flush", daemon=True)
        flush.start()
        flush.join(FLUSH_SECONDS)


class _Complaints(logging.Handler):
    """Takes the library's warnings into our log, each kind once a minute."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._silent_until: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if record.created >= self._silent_until.get(record.msg, 0.0):
            self._silent_until[record.msg] = record.created + COMPLAINT_SECONDS
            log.warning("traces may be lost", reason=record.getMessage())


def _unix(seconds: float, epoch: int) -> int:
    return round(seconds * 1e9) + epoch
