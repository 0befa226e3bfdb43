"""`mnist.v1.PredictionService` over a real socket, as any caller's stubs see it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub

RNG = np.random.default_rng(0)
IMAGES = RNG.random((8, 784), np.float32)
IMAGE = IMAGES[0]


@pytest.fixture(scope="module")
def channel(server: Any) -> Iterator[grpc.Channel]:
    """A channel to the bundled model's server."""
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> PredictionServiceStub:
    """The generated stub, nothing of our client around it."""
    return PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def session(bundled_models: Path) -> ort.InferenceSession:
    """The same file in bare onnxruntime, one thread like the server's."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(bundled_models / "digitnet/1/model.onnx", options)


def bare(session: ort.InferenceSession, images: Any) -> Any:
    """Logits of bare onnxruntime."""
    return session.run(["logits"], {"pixels": images.reshape(-1, 1, 28, 28)})[0]


def logits(prediction: pb.Prediction) -> Any:
    """The wire's logits as the float32 they are."""
    return np.array(prediction.logits, np.float32)


def test_predict_is_bare_onnxruntime(
    stub: PredictionServiceStub, session: ort.InferenceSession
) -> None:
    """One image through the socket gives onnxruntime's logits to the last bit."""
    for image in IMAGES:
        response = stub.Predict(pb.PredictRequest(pixels=image))
        assert (response.model, response.model_version) == ("digitnet", 1)
        assert np.array_equal(logits(response.prediction), bare(session, image)[0])


def test_a_prediction_is_consistent(stub: PredictionServiceStub) -> None:
    """Digit and confidence are those of the largest probability; probabilities are softmax."""
    prediction = stub.Predict(pb.PredictRequest(pixels=IMAGE)).prediction
    exponents = np.exp(np.array(prediction.logits) - max(prediction.logits))
    assert prediction.probabilities == pytest.approx(exponents / exponents.sum(), abs=1e-6)
    assert prediction.digit == np.argmax(prediction.logits)
    assert prediction.confidence == max(prediction.probabilities)


def test_predict_batch_is_bare_onnxruntime(
    stub: PredictionServiceStub, session: ort.InferenceSession
) -> None:
    """A batch gives onnxruntime's logits for that batch to the last bit, in order."""
    response = stub.PredictBatch(pb.PredictBatchRequest(pixels=IMAGES.ravel()))
    assert (response.model, response.model_version) == ("digitnet", 1)
    answers = np.array([logits(prediction) for prediction in response.predictions])
    assert np.array_equal(answers, bare(session, IMAGES))


def test_batch_answers_equal_single_answers(stub: PredictionServiceStub) -> None:
    """Batching changes no digit, and no logit by more than 1e-5."""
    batch = stub.PredictBatch(pb.PredictBatchRequest(pixels=IMAGES.ravel())).predictions
    for image, together in zip(IMAGES, batch, strict=True):
        alone = stub.Predict(pb.PredictRequest(pixels=image)).prediction
        assert alone.digit == together.digit
        assert logits(alone) == pytest.approx(logits(together), abs=1e-5)


def test_a_bad_item_does_not_end_the_stream(stub: PredictionServiceStub) -> None:
    """Every item is answered in order, the bad ones with their error."""
    requests = [
        pb.PredictStreamRequest(pixels=IMAGES[0]),
        pb.PredictStreamRequest(pixels=IMAGES[1][:783]),
        pb.PredictStreamRequest(pixels=IMAGES[2], model="nobody"),
        pb.PredictStreamRequest(pixels=IMAGES[3]),
    ]
    responses = list(stub.PredictStream(iter(requests)))
    assert [response.WhichOneof("outcome") for response in responses] == [
        "prediction",
        "error",
        "error",
        "prediction",
    ]
    assert responses[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "783" in responses[1].error.message
    assert responses[2].error.code == grpc.StatusCode.NOT_FOUND.value[0]
    for index in (0, 3):
        single = stub.Predict(pb.PredictRequest(pixels=IMAGES[index])).prediction
        assert responses[index].prediction == single
        assert responses[index].model == "digitnet"


def test_list_models_tells_where_a_model_comes_from(
    stub: PredictionServiceStub, session: ort.InferenceSession
) -> None:
    """ListModels carries the file's own metadata."""
    (model,) = stub.ListModels(pb.ListModelsRequest()).models
    properties = session.get_modelmeta().custom_metadata_map
    assert (model.name, model.version, model.ready, model.default) == ("digitnet", 1, True, True)
    told = {key: value for key, value in properties.items() if hasattr(model, key)}
    assert properties.keys() - told.keys() <= {"temperature", "teacher_sha256"}
    for key, value in told.items():
        if key == "created":
            assert f"{model.created.ToDatetime().isoformat()}Z" == value
        else:
            assert type(getattr(model, key))(value) == getattr(model, key)


def _spoilt(index: int, value: float) -> Any:
    image = IMAGE.copy()
    image[index] = value
    return image


@pytest.mark.parametrize(
    ("pixels", "advice"),
    [
        pytest.param([], "send 784", id="no pixels"),
        pytest.param(IMAGE[:783], "send 784", id="783 pixels"),
        pytest.param(IMAGES[:2].ravel(), "send 784", id="two images"),
        pytest.param(_spoilt(5, np.nan), r"pixels\[5\] is nan.*finite", id="NaN"),
        pytest.param(_spoilt(6, np.inf), r"pixels\[6\] is inf.*finite", id="Inf"),
        pytest.param(_spoilt(7, -np.inf), r"pixels\[7\] is -inf.*finite", id="-Inf"),
        pytest.param(_spoilt(8, -0.5), r"pixels\[8\] is -0.5.*from 0", id="negative"),
        pytest.param(_spoilt(9, 1e9), r"pixels\[9\] is 1e\+09.*from 0", id="huge"),
        pytest.param(IMAGE * 255, "divide by 255", id="bytes"),
    ],
)
def test_bad_pixels_are_refused_with_advice(
    stub: PredictionServiceStub, pixels: Any, advice: str
) -> None:
    """INVALID_ARGUMENT names the field and says what to do, and the next call is fine."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(pb.PredictRequest(pixels=pixels))
    _assert_bad_request(caught.value, advice)
    stub.Predict(pb.PredictRequest(pixels=IMAGE))


@pytest.mark.parametrize(
    ("pixels", "advice"),
    [
        pytest.param([], "one image at least", id="empty"),
        pytest.param(IMAGES.ravel()[:-1], "784 for each", id="no whole number of images"),
        pytest.param(np.zeros(257 * 784), "257 images.*at most 256", id="above the limit"),
        pytest.param(IMAGES.ravel() * 255, "divide by 255", id="bytes"),
    ],
)
def test_a_bad_batch_is_refused_with_advice(
    stub: PredictionServiceStub, pixels: Any, advice: str
) -> None:
    """All of a batch is answered or none of it, and the sentence says why."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.PredictBatch(pb.PredictBatchRequest(pixels=pixels))
    _assert_bad_request(caught.value, advice)


def _assert_bad_request(error: grpc.RpcError, advice: str) -> None:
    assert isinstance(error, grpc.Call)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(error)
    assert status is not None
    details = BadRequest()
    assert status.details[0].Unpack(details)
    (violation,) = details.field_violations
    assert violation.field == "pixels"
    assert re.search(advice, violation.description)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (pb.PredictRequest(pixels=IMAGE, model="nobody"), "'nobody'.*digitnet"),
        (pb.PredictRequest(pixels=IMAGE, model="../digitnet"), "there are: digitnet"),
        (pb.PredictRequest(pixels=IMAGE, model="x" * 1_000_000), "there are: digitnet"),
        (pb.PredictRequest(pixels=IMAGE, model_version=7), "no version 7; it has: 1"),
        (pb.PredictRequest(pixels=IMAGE, model_version=-1), "no version -1"),
    ],
)
def test_an_unknown_model_is_not_found(
    stub: PredictionServiceStub, request_: pb.PredictRequest, words: str
) -> None:
    """NOT_FOUND says what there is instead."""
    with pytest.raises(grpc.RpcError, match=words) as caught:
        stub.Predict(request_)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_message_above_the_limit_is_refused(stub: PredictionServiceStub) -> None:
    """A message too big to be any batch is refused before it is read."""
    with pytest.raises(grpc.RpcError, match="larger than max") as caught:
        stub.PredictBatch(pb.PredictBatchRequest(pixels=np.zeros(2_000_000)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("method", ["Predict", "PredictBatch", "ListModels"])
@given(data=st.binary(max_size=200))
@settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
def test_random_bytes_are_the_callers_error(
    channel: grpc.Channel, method: str, data: bytes
) -> None:
    """Bytes that are no good message end in INVALID_ARGUMENT or NOT_FOUND, never in INTERNAL."""
    call: Any = channel.unary_unary(f"/mnist.v1.PredictionService/{method}")
    assert call.future(data).code() in {
        grpc.StatusCode.OK,  # an unknown field is no error
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
    }


def test_random_bytes_end_their_stream_only(
    channel: grpc.Channel, stub: PredictionServiceStub
) -> None:
    """A stream item that is no message ends its stream with INVALID_ARGUMENT."""
    stream: Any = channel.stream_stream("/mnist.v1.PredictionService/PredictStream")
    with pytest.raises(grpc.RpcError) as caught:
        list(stream(iter([b"\xff\xff"])))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    stub.Predict(pb.PredictRequest(pixels=IMAGE))
