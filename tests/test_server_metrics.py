"""What Prometheus and the log see of the calls, over real sockets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from conftest import scrape

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub

PIXELS = np.zeros(784, np.float32)


@pytest.fixture
def server(start_server: Any, bundled_models: Path) -> Any:
    """A server that has counted nothing yet, with machine-readable logs."""
    flags = ("--models", str(bundled_models), "--metrics-port", "0", "--log-format", "json")
    return start_server(*flags)


@pytest.fixture
def stub(server: Any) -> Iterator[PredictionServiceStub]:
    """A stub of it."""
    with grpc.insecure_channel(server.address) as channel:
        yield PredictionServiceStub(channel)


def test_calls_are_counted_by_method_model_and_code(
    server: Any, stub: PredictionServiceStub
) -> None:
    """Good calls, bad ones and unknown methods each have their series."""
    for _ in range(3):
        stub.Predict(pb.PredictRequest(pixels=PIXELS))
    stub.PredictBatch(pb.PredictBatchRequest(pixels=np.tile(PIXELS, 5)))
    stub.Predict.future(pb.PredictRequest()).code()
    list(stub.PredictStream(iter([pb.PredictStreamRequest(pixels=PIXELS)] * 2)))
    with grpc.insecure_channel(server.address) as channel:
        unknown: Any = channel.unary_unary("/mnist.v1.PredictionService/Guess")
        unknown.future(b"").code()
    samples = scrape(server)
    service = "/mnist.v1.PredictionService"
    for labels, count in {
        f'code="OK",method="{service}/Predict",model="digitnet"': 3,
        f'code="INVALID_ARGUMENT",method="{service}/Predict",model=""': 1,
        f'code="OK",method="{service}/PredictBatch",model="digitnet"': 1,
        f'code="OK",method="{service}/PredictStream",model="digitnet"': 1,
        'code="UNIMPLEMENTED",method="other",model=""': 1,
    }.items():
        assert samples[f"mnist_requests_total{{{labels}}}"] == count
    assert samples[f'mnist_request_seconds_count{{method="{service}/Predict"}}'] == 4
    assert samples['mnist_run_images_sum{model="digitnet"}'] == 3 + 5 + 2
    assert samples['mnist_queue_seconds_count{model="digitnet"}'] == 6
    assert samples['mnist_run_seconds_sum{model="digitnet"}'] > 0
    assert samples['mnist_queue_depth{model="digitnet"}'] == 0
    assert samples["mnist_in_flight"] == 0


def test_models_are_counted_and_described(server: Any) -> None:
    """Loads by outcome, and each version's provenance."""
    samples = scrape(server)
    assert samples['mnist_model_loads_total{model="digitnet",outcome="loaded"}'] == 1
    (info,) = [sample for sample in samples if sample.startswith("mnist_model_info")]
    assert samples[info] == 1
    assert 'dataset="mnist"' in info
    assert 'model="digitnet"' in info
    assert 'version="1"' in info


@pytest.mark.parametrize("reason", ["queue_full", "expired", "cancelled"])
def test_what_is_never_run_has_its_series_from_the_start(server: Any, reason: str) -> None:
    """An alert on a drop must see 0 before it sees 1."""
    assert scrape(server)[f'mnist_dropped_total{{model="digitnet",reason="{reason}"}}'] == 0


def test_latency_resolves_from_50_microseconds_to_10_seconds(server: Any) -> None:
    """The buckets see a fast answer and a slow one."""
    samples = scrape(server)
    for bound in ("5e-05", "0.0001", "0.001", "0.01", "0.1", "1.0", "10.0"):
        assert f'mnist_queue_seconds_bucket{{le="{bound}",model="digitnet"}}' in samples


def test_each_call_has_one_line_without_its_pixels(
    server: Any, stub: PredictionServiceStub
) -> None:
    """The access log has the caller's request id, the model, the code and the times."""
    metadata = (("x-request-id", "request-7"),)
    stub.Predict(pb.PredictRequest(pixels=PIXELS), metadata=metadata)
    server.stop()
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (call,) = [line for line in lines if line["event"] == "call"]
    assert call["request_id"] == "request-7"
    assert (call["model"], call["version"], call["images"]) == ("digitnet", 1, 1)
    assert call["code"] == "OK"
    assert 0 <= call["queue_ms"] <= call["total_ms"]
    assert 0 < call["run_ms"] <= call["total_ms"]
    assert "pixels" not in call


def test_the_access_log_is_a_sample_under_load(server: Any, stub: PredictionServiceStub) -> None:
    """Of many calls some lines are left out, and the lines that stand say how many."""
    count = 500
    for future in [stub.Predict.future(pb.PredictRequest(pixels=PIXELS)) for _ in range(count)]:
        assert future.code() in {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    server.stop()
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    calls = [line for line in lines if line["event"] == "call"]
    assert 100 <= len(calls) < count
