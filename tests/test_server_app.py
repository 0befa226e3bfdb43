"""A server's life as its caller and its operator see it: start, health, refusal, leaving."""

import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from conftest import start_and_fail
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
REQUEST = pb.PredictRequest(pixels=np.zeros(784))


@pytest.fixture
def models(bundled_models: Path, tmp_path: Path) -> Path:
    """A models directory to be changed."""
    return Path(shutil.copytree(bundled_models, tmp_path / "models"))


@pytest.fixture
def channel(server: Any) -> Iterator[grpc.Channel]:
    """A channel to the bundled model's server."""
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.mark.parametrize(
    "service",
    [
        "",
        "mnist.v1.PredictionService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "models/digitnet",
    ],
)
def test_health_knows_every_service_and_model(channel: grpc.Channel, service: str) -> None:
    """Check answers SERVING for the server, each service and each model."""
    request = health_pb2.HealthCheckRequest(service=service)
    assert health_pb2_grpc.HealthStub(channel).Check(request).status == SERVING


def test_health_does_not_know_others(channel: grpc.Channel) -> None:
    """Check answers NOT_FOUND for a name that nobody has."""
    with pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="models/nobody")
        )
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_our_service(channel: grpc.Channel) -> None:
    """Tools such as grpcurl find the service without its .proto."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "mnist.v1.PredictionService" in database.get_services()
    file = database.FindFileContainingSymbol("mnist.v1.PredictionService")
    assert [method.name for method in file.service[0].method] == [
        "Predict",
        "PredictBatch",
        "PredictStream",
        "ListModels",
    ]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(start_server: Any, bundled_models: Path, signum: int) -> None:
    """Watchers see NOT_SERVING, the process exits 0 and leaves no trace of an error."""
    server = start_server("--models", str(bundled_models))
    with grpc.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=""), timeout=30
        )
        assert next(watch).status == SERVING
        server.process.send_signal(signum)
        assert next(watch).status == NOT_SERVING
        watch.cancel()
    assert server.process.wait(30) == 0
    assert "Traceback" not in server.log.read_text()


def test_accepted_calls_finish_while_new_ones_go_elsewhere(
    start_server: Any, bundled_models: Path
) -> None:
    """A stream open at SIGTERM is answered to its end; a new call is UNAVAILABLE."""
    server = start_server("--models", str(bundled_models))
    with grpc.insecure_channel(server.address) as channel:
        stub = PredictionServiceStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=30)
        assert next(watch).status == SERVING
        refusals: list[grpc.StatusCode] = []

        def requests() -> Iterator[pb.PredictStreamRequest]:
            yield pb.PredictStreamRequest(pixels=REQUEST.pixels)
            server.process.send_signal(signal.SIGTERM)
            assert next(watch).status == NOT_SERVING
            yield pb.PredictStreamRequest(pixels=REQUEST.pixels)
            # Calls are still taken for a moment after health has turned, and one that
            # comes in the very moment the door closes is cancelled.
            while grpc.StatusCode.UNAVAILABLE not in refusals:
                with grpc.insecure_channel(server.address) as other:
                    code = PredictionServiceStub(other).Predict.future(REQUEST, timeout=10).code()
                if code is not grpc.StatusCode.OK:
                    refusals.append(code)
            yield pb.PredictStreamRequest(pixels=REQUEST.pixels)

        outcomes = [item.WhichOneof("outcome") for item in stub.PredictStream(requests())]
        watch.cancel()
    assert set(refusals) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert outcomes == ["prediction"] * 3
    assert server.process.wait(30) == 0


def test_a_port_in_use_is_said(server: Any, bundled_models: Path) -> None:
    """Exit code 1 and one sentence that names the port and the flag."""
    port = server.address.rpartition(":")[2]
    code, said = start_and_fail("--port", port, "--models", str(bundled_models))
    assert code == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in said
    assert "--port" in said


def test_nothing_to_serve_is_said(tmp_path: Path) -> None:
    """An empty models directory is exit code 1 and what to do."""
    code, said = start_and_fail("--models", str(tmp_path))
    assert code == 1
    assert "No version of model 'digitnet'" in said
    assert "make train export" in said


def test_a_missing_models_directory_is_said(tmp_path: Path) -> None:
    """A directory that is not there is a usage error."""
    code, said = start_and_fail("--models", str(tmp_path / "nowhere"))
    assert code == 2
    assert "--models" in said


def test_a_corrupt_model_alone_is_said(models: Path) -> None:
    """The only version being corrupt is exit code 1, and the log says what is wrong with it."""
    (models / "digitnet/1/model.onnx").write_bytes(b"no onnx")
    code, said = start_and_fail("--models", str(models))
    assert code == 1
    assert "model.onnx cannot be loaded" in said


def test_a_refused_version_leaves_the_older_one_serving(start_server: Any, models: Path) -> None:
    """A newer version whose proof fails is listed as not ready, and the older one answers."""
    shutil.copytree(models / "digitnet/1", models / "digitnet/2")
    with np.load(models / "digitnet/2/golden.npz") as golden:
        pixels, logits = golden["pixels"], golden["logits"]
    np.savez(models / "digitnet/2/golden.npz", pixels=pixels, logits=logits + 1)
    server = start_server("--models", str(models))
    with grpc.insecure_channel(server.address) as channel:
        stub = PredictionServiceStub(channel)
        listed = stub.ListModels(pb.ListModelsRequest()).models
        assert [(model.version, model.ready, model.default) for model in listed] == [
            (1, True, True),
            (2, False, False),
        ]
        assert stub.Predict(REQUEST).model_version == 1
        with pytest.raises(grpc.RpcError, match="refused") as caught:
            stub.Predict(pb.PredictRequest(pixels=REQUEST.pixels, model_version=2))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "model refused" in server.log.read_text()


def test_the_newest_version_answers_unless_one_is_named(start_server: Any, models: Path) -> None:
    """Versions count as numbers, not as text, and each can be asked for."""
    for version in (2, 10):
        shutil.copytree(models / "digitnet/1", models / f"digitnet/{version}")
    shutil.copytree(models / "digitnet/1", models / "digitnet/.half-written")
    shutil.copytree(models / "digitnet/1", models / "other/1")
    server = start_server("--models", str(models))
    with grpc.insecure_channel(server.address) as channel:
        stub = PredictionServiceStub(channel)
        assert stub.Predict(REQUEST).model_version == 10
        for model, version in (("digitnet", 2), ("other", 1)):
            request = pb.PredictRequest(pixels=REQUEST.pixels, model=model, model_version=version)
            response = stub.Predict(request)
            assert (response.model, response.model_version) == (model, version)
        listed = stub.ListModels(pb.ListModelsRequest()).models
        assert [(model.name, model.version) for model in listed] == [
            ("digitnet", 1),
            ("digitnet", 2),
            ("digitnet", 10),
            ("other", 1),
        ]


def test_it_listens_on_ipv6(start_server: Any, bundled_models: Path) -> None:
    """An IPv6 address is an address like any other."""
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    server = start_server("--models", str(bundled_models), "--host", "::1")
    with grpc.insecure_channel(server.address) as channel:
        assert PredictionServiceStub(channel).Predict(REQUEST).model == "digitnet"
