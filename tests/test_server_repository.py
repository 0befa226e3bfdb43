"""Models that change while the server answers: nobody's call is lost, nothing unproved answers."""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from callers import asking
from conftest import until
from grpc_health.v1 import health_pb2, health_pb2_grpc

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub

REQUEST = pb.PredictRequest(pixels=np.zeros(784))


@pytest.fixture
def models(bundled_models: Path, tmp_path: Path) -> Path:
    """A models directory to be changed."""
    return Path(shutil.copytree(bundled_models, tmp_path / "models"))


@pytest.fixture
def server(start_server: Any, models: Path) -> Any:
    """A server of that directory."""
    return start_server("--models", str(models))


@pytest.fixture
def channel(server: Any) -> Iterator[grpc.Channel]:
    """A channel to it."""
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> PredictionServiceStub:
    """Its stub."""
    return PredictionServiceStub(channel)


def publish(models: Path, version: int, name: str = "digitnet") -> Path:
    """Puts a copy of the bundled version in place in one move, as the exporter does."""
    staging = Path(shutil.copytree(models / "digitnet/1", models / ".staging/1"))
    (models / name).mkdir(exist_ok=True)
    return staging.rename(models / name / str(version))


def answering(stub: PredictionServiceStub) -> AbstractContextManager[Counter[Any]]:
    """Calls without a pause; yields how often which version answered, or which status came."""

    def ask() -> Any:
        call = stub.Predict.future(REQUEST)
        return call.result().model_version if call.code() is grpc.StatusCode.OK else call.code()

    return asking(ask, 4)


def test_a_new_version_takes_over_under_load(models: Path, stub: PredictionServiceStub) -> None:
    """A version that is put in place answers soon, and no call fails on the way."""
    with answering(stub) as versions:
        until(lambda: versions[1])
        publish(models, 2)
        until(lambda: versions[2])
    assert set(versions) == {1, 2}


def test_a_deleted_version_drains(models: Path, stub: PredictionServiceStub) -> None:
    """The older version takes over when the newest is deleted, and no call fails on the way."""
    publish(models, 2)
    until(lambda: stub.Predict(REQUEST).model_version == 2)
    with answering(stub) as versions:
        until(lambda: versions[2])
        shutil.rmtree(models / "digitnet/2")
        until(lambda: versions[1])
    assert set(versions) == {1, 2}
    assert [model.version for model in stub.ListModels(pb.ListModelsRequest()).models] == [1]


@pytest.mark.parametrize("damage", ["corrupt", "half-copied", "disagreeing"])
def test_a_bad_version_is_refused_and_the_old_one_stays(
    models: Path, stub: PredictionServiceStub, server: Any, damage: str
) -> None:
    """It is listed as not ready, the log says why, and calls go on as before."""
    staging = Path(shutil.copytree(models / "digitnet/1", models / ".staging/1"))
    model = (staging / "model.onnx").read_bytes()
    if damage == "corrupt":
        (staging / "model.onnx").write_bytes(b"\0" + model[1:][::-1])
    elif damage == "half-copied":
        (staging / "golden.npz").unlink()
        (staging / "model.onnx").write_bytes(model[: len(model) // 2])
    else:
        with np.load(staging / "golden.npz") as golden:
            pixels, logits = golden["pixels"], golden["logits"]
        np.savez(staging / "golden.npz", pixels=pixels, logits=logits + 1)
    with answering(stub) as versions:
        staging.rename(models / "digitnet/2")
        until(lambda: len(stub.ListModels(pb.ListModelsRequest()).models) == 2)
        until(lambda: versions.total() > 100)
    assert set(versions) == {1}
    assert not stub.ListModels(pb.ListModelsRequest()).models[1].ready
    assert server.log.read_text().count("model refused") == 1


def test_a_version_that_is_copied_slowly_answers_once_it_is_whole(
    models: Path, stub: PredictionServiceStub
) -> None:
    """What was refused half-copied is looked at again when its files have changed."""
    (models / "digitnet/2").mkdir()
    model = (models / "digitnet/1/model.onnx").read_bytes()
    (models / "digitnet/2/model.onnx").write_bytes(model[:1000])
    until(lambda: len(stub.ListModels(pb.ListModelsRequest()).models) == 2)
    (models / "digitnet/2/model.onnx").write_bytes(model)
    shutil.copy(models / "digitnet/1/golden.npz", models / "digitnet/2/golden.npz")
    until(lambda: stub.Predict(REQUEST).model_version == 2)


def test_a_version_spoilt_in_place_goes_on_answering(
    models: Path, stub: PredictionServiceStub, server: Any
) -> None:
    """What was loaded and proved is kept when its files turn bad."""
    (models / "digitnet/1/model.onnx").write_bytes(b"spoilt")
    until(lambda: "model refused" in server.log.read_text())
    assert stub.Predict(REQUEST).model_version == 1


def test_health_follows_the_models(models: Path, channel: grpc.Channel) -> None:
    """A watcher sees the default model go and come back; a new model has a name of its own.

    The health service itself is well meanwhile: what asks it whether to restart must not.
    """
    health = health_pb2_grpc.HealthStub(channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="models/digitnet"), timeout=60)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    (models / "digitnet").rename(models / ".away")
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    overall = health.Check(health_pb2.HealthCheckRequest(service=""))
    assert overall.status == health_pb2.HealthCheckResponse.NOT_SERVING
    alive = health.Check(health_pb2.HealthCheckRequest(service="grpc.health.v1.Health"))
    assert alive.status == health_pb2.HealthCheckResponse.SERVING
    (models / ".away").rename(models / "digitnet")
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    publish(models, 1, name="another")

    def knows_another() -> bool:
        call = health.Check.future(health_pb2.HealthCheckRequest(service="models/another"))
        return call.code() is grpc.StatusCode.OK

    until(knows_another)


def test_what_is_no_version_is_passed_over(models: Path, stub: PredictionServiceStub) -> None:
    """Hidden folders, files, and names that are no numbers are not looked at."""
    for name in (".hidden/1", "digitnet/0", "digitnet/01", "digitnet/new", "sp ace/1"):
        (models / name).mkdir(parents=True)
    (models / "digitnet/3").touch()
    publish(models, 2)
    until(lambda: stub.Predict(REQUEST).model_version == 2)
    listed = stub.ListModels(pb.ListModelsRequest()).models
    assert [(model.name, model.version) for model in listed] == [("digitnet", 1), ("digitnet", 2)]
