"""What an OpenTelemetry collector sees of the calls, over real sockets."""

import gzip
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from conftest import until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub

REQUEST = pb.PredictRequest(pixels=np.zeros(784))
ITEM = pb.PredictStreamRequest(pixels=REQUEST.pixels)
STEPS = ["queue", "inference", "serialisation"]


class Collector:
    """An OTLP/HTTP endpoint that keeps what it is sent."""

    def __init__(self) -> None:
        requests = self.requests = list[ExportTraceServiceRequest]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def spans(self) -> list[Span]:
        """All spans in the order in which they started."""
        spans = [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(spans, key=lambda span: (span.start_time_unix_nano, span.end_time_unix_nano))

    def resources(self) -> list[dict[str, str]]:
        """What is said of the processes that sent spans."""
        return [
            {each.key: each.value.string_value for each in resource.resource.attributes}
            for request in self.requests
            for resource in request.resource_spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that runs."""
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()
    thread.join()


@pytest.fixture
def traced(start_server: Any, bundled_models: Path, collector: Collector) -> Any:
    """A server that sends its spans to the collector, at the latest when it stops."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    return start_server("--models", str(bundled_models), env=env)


@pytest.fixture
def stub(traced: Any) -> Iterator[PredictionServiceStub]:
    """A stub of it."""
    with grpc.insecure_channel(traced.address) as channel:
        yield PredictionServiceStub(channel)


def attributes(span: Span) -> dict[str, Any]:
    """A span's attributes as Python's values."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "")
        for each in span.attributes
    }


def test_a_call_joins_its_callers_trace(
    traced: Any, collector: Collector, stub: PredictionServiceStub
) -> None:
    """The span has the caller's trace id and parent, and says what the call was."""
    trace_id, parent_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    metadata = (("traceparent", f"00-{trace_id}-{parent_id}-01"), ("x-request-id", "request-7"))
    stub.PredictBatch(pb.PredictBatchRequest(pixels=np.zeros(3 * 784)), metadata=metadata)
    assert traced.stop() == 0
    spans = collector.spans()
    assert {span.trace_id.hex() for span in spans} == {trace_id}
    (call,) = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert call.name == "mnist.v1.PredictionService/PredictBatch"
    assert call.parent_span_id.hex() == parent_id
    assert call.status.code == Status.STATUS_CODE_UNSET
    assert attributes(call) == {
        "rpc.system": "grpc",
        "rpc.service": "mnist.v1.PredictionService",
        "rpc.method": "PredictBatch",
        "rpc.grpc.status_code": 0,
        "mnist.request_id": "request-7",
        "mnist.model": "digitnet",
        "mnist.model_version": 1,
        "mnist.images": 3,
    }
    (resource,) = collector.resources()
    assert resource["service.name"] == "mnist-inference"


def test_the_steps_of_a_call_lie_within_it_in_order(
    traced: Any, collector: Collector, stub: PredictionServiceStub
) -> None:
    """Queue, inference and serialisation follow each other between the call's start and end."""
    before = time.time_ns()
    stub.Predict(REQUEST)
    after = time.time_ns()
    assert traced.stop() == 0
    call, *steps = collector.spans()
    assert call.kind == Span.SPAN_KIND_SERVER
    assert not call.parent_span_id
    assert [step.name for step in steps] == STEPS
    assert {step.parent_span_id for step in steps} == {call.span_id}
    assert {step.trace_id for step in steps} == {call.trace_id}
    times = [
        moment for step in steps for moment in (step.start_time_unix_nano, step.end_time_unix_nano)
    ]
    assert times == sorted(times)
    assert before <= call.start_time_unix_nano <= times[0]
    assert times[-1] <= call.end_time_unix_nano <= after
    inference = steps[1]
    assert inference.start_time_unix_nano < inference.end_time_unix_nano


def test_each_item_of_a_stream_has_its_steps(
    traced: Any, collector: Collector, stub: PredictionServiceStub
) -> None:
    """A stream is one call; a bad item in it has no steps, the good ones have theirs."""
    list(stub.PredictStream(iter([ITEM, pb.PredictStreamRequest(), ITEM])))
    assert traced.stop() == 0
    call, *steps = collector.spans()
    assert call.name == "mnist.v1.PredictionService/PredictStream"
    assert attributes(call)["mnist.images"] == 2
    assert [step.name for step in steps] == STEPS * 2
    assert {step.parent_span_id for step in steps} == {call.span_id}
    assert max(step.end_time_unix_nano for step in steps) <= call.end_time_unix_nano


def test_a_failed_call_says_whose_fault_it_was(
    start_server: Any, bundled_models: Path, tmp_path: Path, collector: Collector
) -> None:
    """The caller's mistake has its code alone; the server's is an error."""
    models = shutil.copytree(bundled_models, tmp_path / "models")
    shutil.copytree(models / "digitnet/1", models / "digitnet/2")
    (models / "digitnet/2/model.onnx").write_bytes(b"no onnx")
    server = start_server(
        "--models", str(models), env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    )
    with grpc.insecure_channel(server.address) as channel:
        stub = PredictionServiceStub(channel)
        for request in (
            pb.PredictRequest(),
            pb.PredictRequest(pixels=REQUEST.pixels, model_version=2),
        ):
            stub.Predict.future(request).code()
    assert server.stop() == 0
    assert [
        (attributes(span)["rpc.grpc.status_code"], span.status.code) for span in collector.spans()
    ] == [
        (grpc.StatusCode.INVALID_ARGUMENT.value[0], Status.STATUS_CODE_UNSET),
        (grpc.StatusCode.UNAVAILABLE.value[0], Status.STATUS_CODE_ERROR),
    ]


def test_a_caller_may_decline_to_be_traced(
    traced: Any, collector: Collector, stub: PredictionServiceStub
) -> None:
    """A traceparent that is not sampled leaves no span."""
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    stub.Predict(REQUEST, metadata=(("traceparent", traceparent),))
    assert traced.stop() == 0
    assert not collector.requests


@pytest.mark.parametrize(
    "traceparent", ["", "00-0-0-01", f"00-{'0' * 32}-{'0' * 16}-01", "0" * 600]
)
def test_a_malformed_traceparent_starts_a_new_trace(
    traced: Any, collector: Collector, stub: PredictionServiceStub, traceparent: str
) -> None:
    """Whatever the caller sends there, its call is answered and traced by itself."""
    assert stub.Predict(REQUEST, metadata=(("traceparent", traceparent),)).model == "digitnet"
    assert traced.stop() == 0
    assert not collector.spans()[0].parent_span_id


def test_each_worker_sends_its_own(
    start_server: Any, bundled_models: Path, collector: Collector
) -> None:
    """Workers are told apart by their instance, and lose no span when they stop."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "digits"}
    server = start_server("--models", str(bundled_models), "--workers", "2", env=env)
    until(lambda: "all workers serving" in server.log.read_text())
    calls = 0
    while len({resource["service.instance.id"] for resource in collector.resources()}) < 2:
        with grpc.insecure_channel(server.address) as channel:  # a new connection may go elsewhere
            PredictionServiceStub(channel).Predict(REQUEST)
        calls += 1
    assert server.stop() == 0
    assert {resource["service.name"] for resource in collector.resources()} == {"digits"}
    assert len([span for span in collector.spans() if span.kind == Span.SPAN_KIND_SERVER]) == calls


def test_a_collector_that_is_not_there_disturbs_nobody(
    start_server: Any, bundled_models: Path
) -> None:
    """Calls are answered, the log says it once, and the server stops well."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and never listens
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{unused.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "0.1",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1",  # each span fails by itself
        }
        server = start_server("--models", str(bundled_models), "--log-format", "json", env=env)
        with grpc.insecure_channel(server.address) as channel:
            for _ in range(5):
                PredictionServiceStub(channel).Predict(REQUEST)
        assert server.stop() == 0
    said = server.log.read_text()
    assert said.count("Failed to export") == 1
    assert all(line.startswith("{") for line in said.splitlines())


def test_a_collector_that_hangs_does_not_hold_the_server_back(
    start_server: Any, bundled_models: Path
) -> None:
    """The server stops although the last spans are not taken, and the exporter would wait."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
        }
        server = start_server("--models", str(bundled_models), env=env)
        with grpc.insecure_channel(server.address) as channel:
            assert PredictionServiceStub(channel).Predict(REQUEST).model == "digitnet"
        assert server.stop() == 0


def test_settings_that_contradict_each_other_are_said(project: Path, bundled_models: Path) -> None:
    """A batch larger than the queue is one sentence that names the variables."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost", "OTEL_BSP_MAX_QUEUE_SIZE": "1"}
    process = subprocess.run(
        [sys.executable, "-m", "server", "--port", "0", "--models", str(bundled_models)],
        cwd=project,
        env=os.environ | env,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert "Check the variables OTEL_BSP_*." in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    ("variable", "path"),
    [("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/v1/traces")],
)
def test_without_an_endpoint_nothing_of_it_is_imported(
    start_server: Any, bundled_models: Path, collector: Collector, variable: str, path: str
) -> None:
    """A server that answers has loaded OpenTelemetry where an endpoint is set, else not."""
    off = dict.fromkeys(["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"], "")
    off["PYTHONPROFILEIMPORTTIME"] = "1"  # logs each import
    for endpoint in ("", collector.url + path):
        server = start_server("--models", str(bundled_models), env=off | {variable: endpoint})
        with grpc.insecure_channel(server.address) as channel:
            PredictionServiceStub(channel).Predict(REQUEST)
        assert server.stop() == 0
        said = server.log.read_text()
        assert "import time:" in said
        assert ("opentelemetry" in said) == bool(endpoint)
        assert bool(collector.requests) == bool(endpoint)
