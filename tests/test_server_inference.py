"""`inference.GRPCInferenceService` over a real socket, as any caller's stubs see it."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
import pytest
from conftest import scrape
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from infer_requests import BYTES, IMAGES, Request, arrays, request

from proto.inference import grpc_service_pb2 as pb
from proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from proto.mnist.v1 import prediction_service_pb2, prediction_service_pb2_grpc
from server import __version__

LAYOUTS = ((1, 28, 28), (28, 28), (784,))
NAMES = ("logits", "probabilities", "digit")


@pytest.fixture(scope="module")
def channel(server: Any) -> Iterator[grpc.Channel]:
    """A channel to the bundled model's server."""
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    """The generated stub."""
    return GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def session(bundled_models: Path) -> ort.InferenceSession:
    """The same file in bare onnxruntime, one thread like the server's."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(bundled_models / "digitnet/1/model.onnx", options)


def bare(session: ort.InferenceSession, images: Any) -> dict[str, Any]:
    """What bare onnxruntime says of floats, as the protocol's outputs."""
    pixels = images.reshape(-1, 1, 28, 28)
    logits, probabilities = session.run(["logits", "probabilities"], {"pixels": pixels})
    return {"logits": logits, "probabilities": probabilities, "digit": logits.argmax(axis=1)}


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same outputs, to the last bit."""
    assert list(found) == list(expected)
    for name, array in found.items():
        assert np.array_equal(array, expected[name]), name


def test_server_is_live_and_ready(stub: GRPCInferenceServiceStub) -> None:
    """The server, the model and its version are ready; what nobody knows is not, as in Triton."""
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    for name, version, ready in (
        ("digitnet", "", True),
        ("digitnet", "1", True),
        ("digitnet", "2", False),
        ("nobody", "", False),
    ):
        assert stub.ModelReady(pb.ModelReadyRequest(name=name, version=version)).ready is ready


def test_metadata_tells_what_goes_in_and_out(stub: GRPCInferenceServiceStub) -> None:
    """Names, types and shapes, versions as strings, and what the server speaks."""
    server = stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (server.name, server.version) == ("mnist-inference", __version__)
    assert {"classification", "statistics", "model_repository"} <= set(server.extensions)
    for version in ("", "1"):
        model = stub.ModelMetadata(pb.ModelMetadataRequest(name="digitnet", version=version))
        assert (model.name, model.platform) == ("digitnet", "onnxruntime_onnx")
        assert list(model.versions) == ["1"]
        tensors = (*model.inputs, *model.outputs)
        assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in tensors] == [
            ("pixels", "FP32", [-1, 1, 28, 28]),
            ("logits", "FP32", [-1, 10]),
            ("probabilities", "FP32", [-1, 10]),
            ("digit", "INT64", [-1]),
        ]


def test_config_is_what_the_flags_say(start_server: Any, bundled_models: Path) -> None:
    """The limits of batch and queue are those the server was started with."""
    flags = ("--models", str(bundled_models), "--max-batch", "7", "--max-queue", "5")
    with grpc.insecure_channel(start_server(*flags).address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        config = stub.ModelConfig(pb.ModelConfigRequest(name="digitnet")).config
        with pytest.raises(grpc.RpcError, match="from 1 to 7"):
            stub.ModelInfer(request(IMAGES))
    assert (config.platform, config.backend) == ("onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size == 7
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 5
    tensors: tuple[Any, ...] = (*config.input, *config.output)
    assert [(tensor.name, tensor.data_type, tensor.dims) for tensor in tensors] == [
        ("pixels", pb.TYPE_FP32, [1, 28, 28]),
        ("logits", pb.TYPE_FP32, [10]),
        ("probabilities", pb.TYPE_FP32, [10]),
        ("digit", pb.TYPE_INT64, []),
    ]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_every_way_gives_the_same_bits(
    channel: grpc.Channel,
    stub: GRPCInferenceServiceStub,
    session: ort.InferenceSession,
    count: int,
) -> None:
    """Predict, ModelInfer raw, ModelInfer typed and bare onnxruntime agree on digits and logits."""
    images = IMAGES[:count]
    expected = bare(session, images)
    assert_equal(arrays(stub.ModelInfer(request(images))), expected)
    assert_equal(arrays(stub.ModelInfer(request(images, raw=False))), expected)
    ours = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    batch = prediction_service_pb2.PredictBatchRequest(pixels=images.ravel())
    predictions = list(ours.PredictBatch(batch).predictions)
    if count == 1:
        single = prediction_service_pb2.PredictRequest(pixels=images.ravel())
        predictions.append(ours.Predict(single).prediction)
        expected = {name: np.repeat(array, 2, axis=0) for name, array in expected.items()}
    found = {
        "logits": np.array([each.logits for each in predictions], np.float32),
        "probabilities": np.array([each.probabilities for each in predictions], np.float32),
        "digit": np.array([each.digit for each in predictions]),
    }
    assert_equal(found, expected)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_bytes_are_divided_by_255(
    stub: GRPCInferenceServiceStub,
    session: ort.InferenceSession,
    layout: tuple[int, ...],
    *,
    raw: bool,
) -> None:
    """UINT8 of every shape is answered as the floats it stands for."""
    response = stub.ModelInfer(request(BYTES, layout, raw=raw))
    assert bool(response.raw_output_contents) is raw
    assert_equal(arrays(response), bare(session, BYTES.astype(np.float32) / np.float32(255)))


@given(data=st.data())
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_well_formed_is_answered(
    stub: GRPCInferenceServiceStub, session: ort.InferenceSession, data: st.DataObject
) -> None:
    """Any batch, datatype, shape and choice of outputs gives bare onnxruntime's bits."""
    images = np.random.default_rng(data.draw(st.integers(0, 2**32))).random(
        (data.draw(st.integers(1, 20)), 784), np.float32
    )
    floats = images
    if data.draw(st.booleans()):
        images = (images * 255).astype(np.uint8)
        floats = images.astype(np.float32) / np.float32(255)
    sent = request(images, data.draw(st.sampled_from(LAYOUTS)), raw=data.draw(st.booleans()))
    names = data.draw(st.lists(st.sampled_from(NAMES), unique=True))
    sent.outputs.extend(Request.InferRequestedOutputTensor(name=name) for name in names)
    expected = bare(session, floats)
    found = arrays(stub.ModelInfer(sent))
    assert_equal(found, {name: expected[name] for name in names or NAMES})


def test_the_response_says_who_answered_what(stub: GRPCInferenceServiceStub) -> None:
    """The id comes back, with the model and the version as a string."""
    sent = request()
    sent.id = "request-7"
    response = stub.ModelInfer(sent)
    assert (response.id, response.model_name, response.model_version) == (
        "request-7",
        "digitnet",
        "1",
    )


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize(("classes", "given"), [(1, 1), (3, 3), (100, 10)])
def test_classification_names_the_largest(
    stub: GRPCInferenceServiceStub,
    session: ort.InferenceSession,
    classes: int,
    given: int,
    *,
    raw: bool,
) -> None:
    """Strings of value and index, the largest first, as many as there are at most."""
    sent = request(IMAGES[:2], raw=raw)
    wanted = sent.outputs.add(name="probabilities")
    wanted.parameters["classification"].int64_param = classes
    response = stub.ModelInfer(sent)
    (output,) = response.outputs
    assert (output.datatype, list(output.shape)) == ("BYTES", [2, given])
    if raw:
        data, strings = response.raw_output_contents[0], []
        while data:
            (length,) = struct.unpack_from("<I", data)
            strings.append(data[4 : 4 + length].decode())
            data = data[4 + length :]
    else:
        strings = [string.decode() for string in output.contents.bytes_contents]
    rows = bare(session, IMAGES[:2])["probabilities"]
    assert strings == [
        f"{row[index]:f}:{index}" for row in rows for index in np.argsort(-row)[:given]
    ]


def test_parameters_that_mean_nothing_here_are_taken(stub: GRPCInferenceServiceStub) -> None:
    """A caller's own parameters, and those of Triton's that change no answer."""
    sent = request()
    sent.parameters["tenant"].string_param = "seven"
    sent.parameters["share"].double_param = 0.5
    sent.parameters["priority"].uint64_param = 1
    sent.parameters["timeout"].int64_param = 60_000_000
    sent.inputs[0].parameters["origin"].bool_param = True
    assert stub.ModelInfer(sent).model_name == "digitnet"


def test_a_bad_request_does_not_end_the_stream(stub: GRPCInferenceServiceStub) -> None:
    """Each is answered in order; an error has its request's id, an answer says it is the last."""
    sent = [request(IMAGES[i : i + 1], raw=i % 2 == 0) for i in range(5)]
    for index, item in enumerate(sent):
        item.id = str(index)
    sent[1].inputs[0].shape[0] = 2
    sent[3].model_name = "nobody"
    responses = list(stub.ModelStreamInfer(iter(sent)))
    assert [response.infer_response.id for response in responses] == list("01234")
    assert [bool(response.error_message) for response in responses] == [0, 1, 0, 1, 0]
    assert "takes 1568" in responses[1].error_message
    assert "'nobody'" in responses[3].error_message
    for index in (0, 2, 4):
        answer = responses[index].infer_response
        assert answer.parameters.pop("triton_final_response").bool_param
        assert answer == stub.ModelInfer(sent[index])


def test_statistics_add_up(start_server: Any, bundled_models: Path) -> None:
    """Calls of both protocols, answered and failed, are counted once, as Prometheus has them."""
    server = start_server("--models", str(bundled_models), "--metrics-port", "0")
    with grpc.insecure_channel(server.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        ours = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for count in (1, 1, 3, 8):
            stub.ModelInfer(request(IMAGES[:count]))
        list(stub.ModelStreamInfer(iter([request()] * 2)))
        ours.Predict(prediction_service_pb2.PredictRequest(pixels=IMAGES[0]))
        late = request()
        late.parameters["timeout"].int64_param = 1  # µs, mostly gone before the queue is reached
        codes = [stub.ModelInfer.future(late).code() for _ in range(20)]
        failed = codes.count(grpc.StatusCode.DEADLINE_EXCEEDED)
        assert failed
        singles = 5 + codes.count(grpc.StatusCode.OK)
        (found,) = stub.ModelStatistics(pb.ModelStatisticsRequest()).model_stats
        for name, version in (("digitnet", ""), ("digitnet", "1")):
            chosen = pb.ModelStatisticsRequest(name=name, version=version)
            assert list(stub.ModelStatistics(chosen).model_stats) == [found]
    assert (found.name, found.version) == ("digitnet", "1")
    assert (found.inference_count, found.execution_count) == (singles + 3 + 8, singles + 2)
    assert time.time() - 60 < found.last_inference / 1000 <= time.time()
    sums = found.inference_stats
    for each in (sums.success, sums.queue, sums.compute_infer):
        assert each.count == singles + 2
    # As perf_analyzer demands.
    assert sums.compute_input.count == sums.compute_infer.count == sums.compute_output.count
    assert sums.success.ns == sums.queue.ns + sums.compute_infer.ns
    assert sums.fail.count == failed
    runs = {each.batch_size: each.compute_infer for each in found.batch_stats}
    assert {images: run.count for images, run in runs.items()} == {1: singles, 3: 1, 8: 1}
    assert sums.compute_infer.ns == sum(run.ns for run in runs.values())
    samples = scrape(server)
    model = '{model="digitnet"}'
    assert samples[f"mnist_run_seconds_sum{model}"] == pytest.approx(sums.compute_infer.ns / 1e9)
    assert samples[f"mnist_queue_seconds_sum{model}"] == pytest.approx(sums.queue.ns / 1e9)
    assert samples['mnist_dropped_total{model="digitnet",reason="expired"}'] == sums.fail.count


def test_health_and_reflection_list_the_service(channel: grpc.Channel) -> None:
    """Whoever asks what is here finds it, with its methods."""
    service = "inference.GRPCInferenceService"
    health = health_pb2_grpc.HealthStub(channel)
    status = health.Check(health_pb2.HealthCheckRequest(service=service)).status
    assert status == health_pb2.HealthCheckResponse.SERVING
    reflection = ProtoReflectionDescriptorDatabase(channel)
    assert service in reflection.get_services()
    file = reflection.FindFileContainingSymbol(service)
    assert len(file.service[0].method) == 12
