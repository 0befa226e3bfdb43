"""Callers that load and unload models, where the server lets them."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from conftest import until
from grpc_health.v1 import health_pb2, health_pb2_grpc
from infer_requests import request

from proto.inference import grpc_service_pb2 as pb
from proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from proto.mnist.v1 import prediction_service_pb2
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

Load = pb.RepositoryModelLoadRequest
Unload = pb.RepositoryModelUnloadRequest


@pytest.fixture
def models(bundled_models: Path, tmp_path: Path) -> Path:
    """A models directory to be changed, with two models in it."""
    models = Path(shutil.copytree(bundled_models, tmp_path / "models"))
    shutil.copytree(models / "digitnet", models / "other")
    return models


@pytest.fixture
def channel(start_server: Any, models: Path) -> Iterator[grpc.Channel]:
    """A channel to a server of that directory which lets its models be loaded and unloaded."""
    server = start_server("--models", str(models), "--allow-model-control")
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    """Its stub."""
    return GRPCInferenceServiceStub(channel)


def index(stub: GRPCInferenceServiceStub, *, ready: bool = False) -> dict[tuple[str, str], str]:
    """The states of all versions."""
    models = stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=ready)).models
    return {(model.name, model.version): model.state for model in models}


def health(channel: grpc.Channel, service: str) -> Any:
    """What health says of a service or model."""
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Check(request).status


def publish(models: Path, name: str, version: int) -> None:
    """Puts a copy of the bundled version in place in one move, as the exporter does."""
    staging = Path(shutil.copytree(models / "digitnet/1", models / ".staging/1"))
    staging.rename(models / name / str(version))


def test_an_unloaded_model_stays_unloaded_until_it_is_loaded(
    models: Path, channel: grpc.Channel, stub: GRPCInferenceServiceStub
) -> None:
    """Its calls, health, ListModels and the index follow at once, whatever the watcher finds."""
    ours = PredictionServiceStub(channel)
    stub.RepositoryModelUnload(Unload(model_name="digitnet"))
    assert health(channel, "models/digitnet") == health(channel, "") == NOT_SERVING
    assert health(channel, "models/other") == SERVING
    assert not stub.ServerReady(pb.ServerReadyRequest()).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="digitnet")).ready
    listed = ours.ListModels(prediction_service_pb2.ListModelsRequest()).models
    assert {model.name: model.ready for model in listed} == {"digitnet": False, "other": True}
    for answer in (
        stub.ModelInfer.future(request()),
        ours.Predict.future(prediction_service_pb2.PredictRequest(pixels=[0.0] * 784)),
    ):
        assert answer.code() is grpc.StatusCode.UNAVAILABLE
        assert "was unloaded" in str(answer.details())

    publish(models, "digitnet", 2)
    publish(models, "other", 2)
    until(lambda: index(stub).get(("other", "2")) == "READY")
    until(lambda: ("digitnet", "2") in index(stub))
    assert index(stub, ready=True) == {("other", "1"): "READY", ("other", "2"): "READY"}
    assert index(stub)["digitnet", "1"] == index(stub)["digitnet", "2"] == "UNAVAILABLE"

    stub.RepositoryModelLoad(Load(model_name="digitnet"))
    assert stub.ModelInfer(request()).model_version == "2"
    assert health(channel, "models/digitnet") == health(channel, "") == SERVING
    assert set(index(stub).values()) == {"READY"}


def test_calls_under_way_are_finished(stub: GRPCInferenceServiceStub) -> None:
    """Of many calls those that came before the model went are answered; the others are told."""
    calls = [stub.ModelInfer.future(request()) for _ in range(100)]
    assert calls[0].result().model_name == "digitnet"
    stub.RepositoryModelUnload(Unload(model_name="digitnet"))
    codes = {call.code() for call in calls}
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


def test_unloading_twice_is_unloading_once(stub: GRPCInferenceServiceStub) -> None:
    """Each is done when it returns, with what Triton's client sends beside the name."""
    unload = Unload(model_name="other")
    unload.parameters["unload_dependents"].bool_param = True
    for _ in range(2):
        stub.RepositoryModelUnload(unload)
        assert index(stub)["other", "1"] == "UNAVAILABLE"
    for _ in range(2):
        stub.RepositoryModelLoad(Load(model_name="other"))
        assert index(stub)["other", "1"] == "READY"


def test_loading_finds_what_is_new(models: Path, stub: GRPCInferenceServiceStub) -> None:
    """A model that was put in place answers when the call returns."""
    (models / "digitnet").rename(models / "new")
    stub.RepositoryModelLoad(Load(model_name="new"))
    sent = request()
    sent.model_name = "new"
    assert stub.ModelInfer(sent).model_name == "new"


def test_statistics_start_anew_when_a_model_is_loaded(stub: GRPCInferenceServiceStub) -> None:
    """What a version did before it was unloaded is not counted."""
    stub.ModelInfer(request())
    stub.RepositoryModelUnload(Unload(model_name="digitnet"))
    stub.RepositoryModelLoad(Load(model_name="digitnet"))
    (found,) = stub.ModelStatistics(pb.ModelStatisticsRequest(name="digitnet")).model_stats
    assert found.inference_count == found.inference_stats.success.count == 0


def test_a_model_that_is_refused_cannot_be_loaded(
    models: Path, stub: GRPCInferenceServiceStub
) -> None:
    """FAILED_PRECONDITION says why, and so does the index."""
    (models / "broken/1").mkdir(parents=True)
    with pytest.raises(grpc.RpcError, match=r"broken.* 1: .* model.onnx is missing") as caught:
        stub.RepositoryModelLoad(Load(model_name="broken"))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    listed = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
    (broken,) = [model for model in listed if model.name == "broken"]
    assert broken.state == "UNAVAILABLE"
    assert "model.onnx is missing" in broken.reason


@pytest.fixture(scope="module")
def controlled(start_server: Any, bundled_models: Path) -> Iterator[GRPCInferenceServiceStub]:
    """A server that lets its models be controlled, for tests that change nothing."""
    server = start_server("--models", str(bundled_models), "--allow-model-control")
    with grpc.insecure_channel(server.address) as channel:
        yield GRPCInferenceServiceStub(channel)


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"model_name": "nobody"}, grpc.StatusCode.NOT_FOUND),
        ({"model_name": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"model_name": " "}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"model_name": "../digitnet"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"repository_name": "x", "model_name": "digitnet"}, grpc.StatusCode.INVALID_ARGUMENT),
        (
            {"model_name": "digitnet", "parameters": {"config": {"string_param": "{}"}}},
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            {"model_name": "digitnet", "parameters": {"file:1/model.onnx": {"bytes_param": b""}}},
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            {"model_name": "digitnet", "parameters": {"unload_dependents": {"int64_param": 1}}},
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ],
)
def test_bad_requests_change_nothing(
    controlled: GRPCInferenceServiceStub, method: str, sent: Any, code: grpc.StatusCode
) -> None:
    """Unknown models, paths, and files or settings of the caller's own are refused."""
    kind = Load if method == "RepositoryModelLoad" else Unload
    with pytest.raises(grpc.RpcError) as caught:
        getattr(controlled, method)(kind(**sent))
    assert caught.value.code() is code
    assert controlled.ModelInfer(request()).model_name == "digitnet"


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_without_the_flag_nobody_may(server: Any, method: str) -> None:
    """PERMISSION_DENIED names the flag, and the model goes on."""
    kind = Load if method == "RepositoryModelLoad" else Unload
    with grpc.insecure_channel(server.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="--allow-model-control") as caught:
            getattr(stub, method)(kind(model_name="digitnet"))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert stub.ModelInfer(request()).model_name == "digitnet"


def test_several_workers_cannot_be_controlled(project: Path) -> None:
    """A usage error says that a call would reach one worker only."""
    command = [sys.executable, "-m", "server", "--port", "0", "--workers", "2"]
    process = subprocess.run(
        [*command, "--allow-model-control"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert process.returncode == 2
    assert "a call reaches one of them only" in " ".join(process.stderr.split())
