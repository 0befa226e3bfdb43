"""Both clients against a scripted service on a real socket: what is sent, read, raised, retried."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import client
from client import AsyncDigitClient, DigitClient, FieldViolation, Health, Prediction
from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)

Images = npt.NDArray[np.float32]
ANSWER = pb.Prediction(
    digit=7, confidence=0.5, probabilities=[0.05] * 7 + [0.5, 0.1, 0.05], logits=range(10)
)


class Script(PredictionServiceServicer):
    """Keeps every request, and fails with the statuses that it is given before it answers."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: dict[str, str | bytes] = {}  # of the last request
        self.failures: list[Status] = []
        self.models: list[pb.Model] = []
        self.health = health.HealthServicer()
        self.held = threading.Event()  # while cleared, nothing is answered
        self.held.set()
        self.left = threading.Event()  # set when a caller has gone

    def _take(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        context.add_callback(self.left.set)
        self.held.wait()
        if self.failures:
            context.abort_with_status(rpc_status.to_status(self.failures.pop(0)))

    def Predict(self, request: Any, context: Any) -> pb.PredictResponse:
        """Sees a seven."""
        self._take(request, context)
        return pb.PredictResponse(prediction=ANSWER, model="scripted", model_version=3)

    def PredictBatch(self, request: Any, context: Any) -> pb.PredictBatchResponse:
        """Sees as many sevens."""
        self._take(request, context)
        count = len(request.pixels) // 784
        return pb.PredictBatchResponse(
            predictions=[ANSWER] * count, model="scripted", model_version=3
        )

    def PredictStream(
        self, request_iterator: Any, context: Any
    ) -> Iterator[pb.PredictStreamResponse]:
        """Sees sevens, but refuses what has not 784 pixels or starts with a 2."""
        for request in request_iterator:
            self._take(request, context)
            if len(request.pixels) != 784 or request.pixels[0] == 2:
                yield pb.PredictStreamResponse(error=status(3, "divide by 255"))
            else:
                yield pb.PredictStreamResponse(prediction=ANSWER, model="scripted", model_version=3)

    def ListModels(self, request: Any, context: Any) -> pb.ListModelsResponse:
        """Lists the scripted models."""
        self._take(request, context)
        return pb.ListModelsResponse(models=self.models)


def status(code: int, message: str, *details: Message) -> Status:
    """Builds a google.rpc.Status."""
    built = Status(code=code, message=message)
    for detail in details:
        built.details.add().Pack(detail)
    return built


@contextmanager
def serving(
    script: Script, credentials: grpc.ServerCredentials | None = None, address: str = "127.0.0.1:0"
) -> Iterator[str]:
    """Serves a script on a free port and yields its address."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    add_PredictionServiceServicer_to_server(script, server)
    health_pb2_grpc.add_HealthServicer_to_server(script.health, server)
    port = (
        server.add_insecure_port(address)
        if credentials is None
        else server.add_secure_port(address, credentials)
    )
    server.start()
    yield f"localhost:{port}"
    script.held.set()
    server.stop(None).wait()


@pytest.fixture
def script() -> Script:
    """What the service does."""
    return Script()


@pytest.fixture
def address(script: Script) -> Iterator[str]:
    """Where the service is."""
    with serving(script) as address:
        yield address


Ask = Callable[..., Any]


def ask_blocking(address: str, method: str, *args: Any, **options: Any) -> Any:
    """Calls a method of the blocking client."""
    with DigitClient(address) as blocking:
        result = getattr(blocking, method)(*args, **options)
        return list(result) if method == "predict_stream" else result


def ask_awaiting(address: str, method: str, *args: Any, **options: Any) -> Any:
    """Calls a method of the asyncio client."""

    async def ask() -> Any:
        async with AsyncDigitClient(address) as awaiting:
            result = getattr(awaiting, method)(*args, **options)
            if method == "predict_stream":
                return [outcome async for outcome in result]
            return await result

    return asyncio.run(ask())


both = pytest.mark.parametrize("ask", [ask_blocking, ask_awaiting], ids=["blocking", "awaiting"])


@pytest.fixture(scope="module")
def open_script() -> Iterator[tuple[Script, DigitClient]]:
    """A service and a client of it that stay while many examples are tried."""
    script = Script()
    with serving(script) as address, DigitClient(address) as blocking:
        yield script, blocking


@given(
    image=hnp.arrays(np.float32, (28, 28), elements=st.floats(width=32)),
    model=st.text(st.characters(exclude_categories=["Cs"])),
    version=st.integers(-(2**63), 2**63 - 1),
)
def test_what_is_sent_is_what_arrives(
    open_script: tuple[Script, DigitClient], image: Images, model: str, version: int
) -> None:
    """Protobuf reads any pixels, model and version out of our bytes as they were."""
    script, blocking = open_script
    blocking.predict(image, model=model, version=version)
    request = script.requests.pop()
    expected = pb.PredictRequest(pixels=image.ravel().tolist(), model=model, model_version=version)
    assert request.SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )


@both
@pytest.mark.parametrize(
    "image",
    [
        np.arange(784, dtype=np.uint8).reshape(28, 28),
        np.arange(784, dtype=np.uint8),
        np.arange(784, dtype=np.uint8).reshape(1, 28, 28),
        (np.arange(784) % 256 / 255).astype(np.float32).reshape(28, 28),
        np.asfortranarray((np.arange(784) % 256 / 255).reshape(28, 28)),
        [[x % 256 / 255 for x in range(28 * y, 28 * y + 28)] for y in range(28)],
    ],
    ids=["uint8 28x28", "uint8 784", "uint8 1x28x28", "float32", "float64 by columns", "lists"],
)
def test_every_way_to_give_an_image(
    script: Script, address: str, ask: Ask, image: npt.ArrayLike
) -> None:
    """Shapes and types differ, and the pixels on the wire do not."""
    prediction = ask(address, "predict", image)
    expected = np.arange(784).astype(np.uint8).astype(np.float32) / np.float32(255)
    assert np.array_equal(np.array(script.requests[0].pixels, np.float32), expected)
    assert prediction.digit == 7


@both
@pytest.mark.parametrize(
    "images",
    [
        np.full((3, 28, 28), 255, np.uint8),
        np.ones((3, 784), np.float32),
        np.ones((3, 1, 28, 28)),
        [np.full((28, 28), 255, np.uint8), np.ones(784), [1.0] * 784],
        range(3),
    ],
    ids=["3x28x28", "3x784", "3x1x28x28", "list", "generator"],
)
def test_every_way_to_give_a_batch(script: Script, address: str, ask: Ask, images: Any) -> None:
    """Three images arrive as 3 × 784 values and come back as three predictions."""
    if isinstance(images, range):
        images = (np.ones((28, 28)) for _ in images)
    predictions = ask(address, "predict_batch", images)
    assert script.requests[0].pixels == [1.0] * 3 * 784
    assert [prediction.digit for prediction in predictions] == [7, 7, 7]


@both
def test_an_answer_is_plain_values(address: str, ask: Ask) -> None:
    """A prediction holds float32 arrays and who answered, and cannot be changed."""
    prediction = ask(address, "predict", np.zeros(784))
    assert (prediction.digit, prediction.confidence) == (7, 0.5)
    assert (prediction.model, prediction.model_version) == ("scripted", 3)
    assert prediction.probabilities.dtype == prediction.logits.dtype == np.float32
    assert prediction.probabilities.tolist() == pytest.approx(list(ANSWER.probabilities))
    assert prediction.logits.tolist() == list(range(10))
    with pytest.raises(FrozenInstanceError):
        prediction.digit = 8


@both
@pytest.mark.parametrize(
    ("method", "image", "sentence"),
    [
        (
            "predict",
            np.zeros((27, 28)),
            r"28×28 or of 784 values; this one has the shape \(27, 28\)",
        ),
        ("predict", np.zeros((2, 784)), r"this one has the shape \(2, 784\)"),
        ("predict", 5, "28×28 or of 784"),
        ("predict", [[0.0, 1.0], [0.0]], "rows must all have the same length"),
        ("predict", ["7"] * 784, "holds numbers"),
        ("predict", [None] * 784, "holds numbers"),
        ("predict", np.zeros(784, complex), "holds complex128"),
        ("predict_batch", np.zeros((28, 28)), "n×28×28 or of n×784"),
        ("predict_batch", [np.zeros(784), np.zeros(783)], "Image 1 of the batch"),
    ],
)
def test_what_is_no_image_is_refused_before_it_is_sent(
    script: Script, address: str, ask: Ask, method: str, image: Any, sentence: str
) -> None:
    """A wrong shape or type is InvalidInput with a sentence, and no call is made."""
    with pytest.raises(client.InvalidInput, match=sentence) as caught:
        ask(address, method, image)
    assert caught.value.violations[0].field == "pixels"
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert script.requests == []


@both
@pytest.mark.parametrize("value", [255.0, -1.0, float("nan"), 1e300])
def test_values_are_the_servers_to_judge(
    script: Script, address: str, ask: Ask, value: float
) -> None:
    """Values out of [0, 1] are sent, so that the server says what is wrong with them."""
    ask(address, "predict", np.full(784, value))
    expected = np.full(784, np.inf if value == 1e300 else value, np.float32)
    assert np.array_equal(script.requests[0].pixels, expected, equal_nan=True)


CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: client.InvalidInput,
    grpc.StatusCode.NOT_FOUND: client.NotFound,
    grpc.StatusCode.UNAUTHENTICATED: client.AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: client.AccessDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: client.Overloaded,
    grpc.StatusCode.UNAVAILABLE: client.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: client.DeadlineExceeded,
    grpc.StatusCode.INTERNAL: client.ServerError,
    grpc.StatusCode.UNIMPLEMENTED: client.ServerError,
    grpc.StatusCode.DATA_LOSS: client.ServerError,
}


@both
@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_each_status_has_its_error(
    script: Script, address: str, ask: Ask, code: grpc.StatusCode
) -> None:
    """An error has the type of its status, and keeps the code and the server's sentence."""
    script.failures = [status(code.value[0], "It is so.")] * 5
    with pytest.raises(client.ClientError, match=r"It is so\.") as caught:
        ask(address, "predict", np.zeros(784))
    assert type(caught.value) is CODES[code]
    assert (caught.value.code, caught.value.details) == (code, "It is so.")


@both
def test_details_reach_the_caller(script: Script, address: str, ask: Ask) -> None:
    """Field violations, the pause before another try and the request id are the error's own."""
    violation = BadRequest.FieldViolation(field="pixels", description="divide by 255")
    script.failures = [
        status(3, "no", BadRequest(field_violations=[violation])),
        *[status(8, "full", RetryInfo(retry_delay=Duration(nanos=250_000_000)))] * 5,
        status(13, "oh", RequestInfo(request_id="abc")),
    ]
    with pytest.raises(client.InvalidInput) as invalid:
        ask(address, "predict", np.zeros(784))
    assert invalid.value.violations == (FieldViolation("pixels", "divide by 255"),)
    with pytest.raises(client.Overloaded) as overloaded:
        ask(address, "predict", np.zeros(784))
    assert overloaded.value.retry_after == 0.25
    with pytest.raises(client.ServerError) as failed:
        ask(address, "predict", np.zeros(784))
    assert failed.value.request_id == "abc"


@both
@pytest.mark.parametrize(
    "method", ["predict", "predict_batch"], ids=["one image", "a batch of 1,000"]
)
def test_what_passes_is_tried_again(script: Script, address: str, ask: Ask, method: str) -> None:
    """A call survives servers that are unavailable, overloaded or stopping, whatever its size."""
    script.failures = [status(14, "draining"), status(8, "full"), status(1, "stopping")]
    ask(address, method, np.zeros((1000, 784) if method == "predict_batch" else 784))
    assert len(script.requests) == 4


@both
@pytest.mark.parametrize("code", [3, 5, 13])
def test_what_stays_is_not_tried_again(script: Script, address: str, ask: Ask, code: int) -> None:
    """A call that would fail the same way is made once."""
    script.failures = [status(code, "no")] * 2
    with pytest.raises(client.ClientError):
        ask(address, "predict", np.zeros(784))
    assert len(script.requests) == 1


@both
def test_the_deadline_holds(script: Script, address: str, ask: Ask) -> None:
    """A server that never answers is given up after the timeout, and told so."""
    script.held.clear()
    with pytest.raises(client.DeadlineExceeded):
        ask(address, "predict", np.zeros(784), timeout=0.2)
    assert script.left.wait(10)


@both
@pytest.mark.parametrize(
    ("method", "images"),
    [
        ("predict", [np.zeros(784)]),
        ("predict_batch", [np.zeros((2, 784))]),
        ("predict_stream", [[np.zeros(784)]]),
        ("models", []),
    ],
)
def test_a_call_has_its_metadata_with_it(
    script: Script, address: str, ask: Ask, method: str, images: list[Any]
) -> None:
    """What is to be sent beside a call arrives, whatever the method."""
    ask(address, method, *images, metadata={"x-request-id": "abc"})
    assert script.metadata["x-request-id"] == "abc"


@both
def test_a_message_above_the_limit_says_what_to_do(address: str, ask: Ask) -> None:
    """The text that gRPC has for it becomes InvalidInput, though its status is a full queue's."""
    with pytest.raises(client.InvalidInput, match=r"too large.*send fewer images in one call"):
        ask(address, "predict_batch", np.zeros((1400, 784)))


@both
def test_nobody_there_is_unavailable(script: Script, ask: Ask) -> None:
    """A port that nobody listens on any more is Unavailable."""
    with serving(script) as address:
        pass
    with pytest.raises(client.Unavailable):
        ask(address, "predict", np.zeros(784))


def test_a_call_can_wait_for_its_server(script: Script, tmp_path: Path) -> None:
    """With wait_for_ready a call made before the server is up is answered once it is."""
    target = f"unix:{tmp_path}/socket"
    with (
        DigitClient(target, timeout=60, wait_for_ready=True) as waiting,
        ThreadPoolExecutor(1) as pool,
    ):
        call = pool.submit(waiting.predict, np.zeros(784))
        with serving(script, address=target):
            assert call.result().digit == 7


def test_calls_are_spread_and_none_is_lost() -> None:
    """Calls take turns between two servers, and go on at the other when one is gone."""
    first, second = Script(), Script()
    with serving(first) as one:
        with serving(second) as two:
            ports = [address.rpartition(":")[2] for address in (one, two)]
            target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
            spread = DigitClient(target, timeout=60)
            for _ in range(10_000):
                spread.predict(np.zeros(784))
                if first.requests and second.requests:  # both are connected
                    break
            before = len(first.requests), len(second.requests)
            for _ in range(10):
                spread.predict(np.zeros(784))
            after = len(first.requests), len(second.requests)
            assert np.subtract(after, before).tolist() == [5, 5]
        for _ in range(10):
            assert spread.predict(np.zeros(784)).digit == 7
        assert len(second.requests) == after[1]
        spread.close()


def _images() -> Iterator[Any]:
    yield np.zeros(784)
    yield np.full(784, 2.0)
    yield [1, 2, 3]
    yield np.ones((28, 28))


async def _awaited_images() -> AsyncIterator[Any]:
    for image in _images():
        yield image


def _outcomes(outcomes: list[Any]) -> list[Any]:
    return [one.digit if isinstance(one, Prediction) else str(one) for one in outcomes]


NO_IMAGE = "An image is an array of 28×28 or of 784 values; this one has the shape (3,)."
STREAMED = [7, "divide by 255", NO_IMAGE, 7]


@both
def test_a_bad_item_does_not_end_the_stream(address: str, ask: Ask) -> None:
    """Whether the server or the client refuses an image, all outcomes come, in order."""
    assert _outcomes(ask(address, "predict_stream", _images())) == STREAMED


def test_a_stream_takes_awaited_images(address: str) -> None:
    """The asyncio client's stream takes an asynchronous iterable as well."""
    assert _outcomes(ask_awaiting(address, "predict_stream", _awaited_images())) == STREAMED


@both
def test_what_an_iterable_raises_is_raised(address: str, ask: Ask) -> None:
    """An error in the caller's own generator is not lost in gRPC's thread."""

    def broken() -> Iterator[Images]:
        yield np.zeros(784, np.float32)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        ask(address, "predict_stream", broken())


def test_a_stream_that_fails_raises(script: Script, address: str) -> None:
    """An error of the whole call, unlike that of an item, ends the iteration."""
    script.failures = [status(13, "broken")]
    over = threading.Event()

    def images() -> Iterator[Images]:
        yield np.zeros(784, np.float32)
        over.wait()

    with pytest.raises(client.ServerError, match="broken"):
        ask_blocking(address, "predict_stream", images())
    over.set()


def test_an_awaited_stream_that_fails_raises(script: Script, address: str) -> None:
    """The same for asyncio, once what was sent has arrived."""
    script.failures = [status(13, "broken")]

    async def images() -> AsyncIterator[Images]:
        yield np.zeros(784, np.float32)
        await asyncio.Event().wait()

    with pytest.raises(client.ServerError, match="broken"):
        ask_awaiting(address, "predict_stream", images())


def test_a_stream_left_early_is_cancelled(script: Script, address: str) -> None:
    """Who stops iterating ends the call, and the server learns of it."""
    with DigitClient(address) as blocking:
        outcomes = blocking.predict_stream(np.zeros(784) for _ in iter(int, 1))
        assert isinstance(next(outcomes), Prediction)
        outcomes.close()  # type: ignore[attr-defined] # a generator's
        assert script.left.wait(10)


@both
def test_models_are_plain_values(script: Script, address: str, ask: Ask) -> None:
    """The provenance of each version is read, its time with a zone, or None where it is missing."""
    described = pb.Model(name="digitnet", version=2, ready=True, default=True, parameters=9_032)
    described.created.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    script.models = [described, pb.Model(name="tiny", version=1)]
    first, second = ask(address, "models")
    assert (first.name, first.version, first.ready, first.default) == ("digitnet", 2, True, True)
    assert (first.parameters, first.created) == (9_032, datetime(2026, 1, 2, tzinfo=UTC))
    assert (second.ready, second.created) == (False, None)


@both
def test_health_is_told(script: Script, address: str, ask: Ask) -> None:
    """The whole server's, a model's, and that of nobody."""
    script.health.set("models/tiny", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert ask(address, "health") is Health.SERVING
    assert ask(address, "health", "models/tiny") is Health.NOT_SERVING
    with pytest.raises(client.NotFound):
        ask(address, "health", "models/none")
