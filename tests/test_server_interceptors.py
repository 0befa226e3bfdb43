"""What the wire says of errors nobody foresaw, over a real socket."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc
import pytest
from google.rpc.error_details_pb2 import RequestInfo, RetryInfo
from grpc_status import rpc_status

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    PredictionServiceStub,
    add_PredictionServiceServicer_to_server,
)
from server.arrivals import Arrivals
from server.errors import NotReady, QueueFull
from server.interceptors import CallInterceptor
from server.logs import AccessLog


class Failing(PredictionServiceServicer):
    """Raises the error it is told to."""

    error: Exception

    def Predict(self, request: object, context: object) -> NoReturn:
        """Fails."""
        raise self.error

    def PredictStream(self, request_iterator: object, context: object) -> NoReturn:
        """Fails."""
        raise self.error


@pytest.fixture
def servicer() -> Failing:
    """A servicer that fails."""
    return Failing()  # type: ignore[abstract] # the other methods stay unimplemented


@pytest.fixture
def stub(servicer: Failing) -> Iterator[PredictionServiceStub]:
    """A stub of a server that runs the failing servicer behind the real interceptor."""
    server = grpc.server(
        ThreadPoolExecutor(2), interceptors=[CallInterceptor(Arrivals(), AccessLog())]
    )
    add_PredictionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        yield PredictionServiceStub(channel)
    server.stop(None).wait()


@pytest.mark.parametrize("method", ["Predict", "PredictStream"])
def test_the_unforeseen_is_internal_and_keeps_its_trace(
    servicer: Failing,
    stub: PredictionServiceStub,
    method: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The wire has a request id and nothing of the fault; the log has both."""
    servicer.error = ZeroDivisionError("secret")
    metadata = (("x-request-id", "request-7"),)
    call: Callable[[], object] = {
        "Predict": lambda: stub.Predict(pb.PredictRequest(), metadata=metadata),
        "PredictStream": lambda: list(stub.PredictStream(iter([]), metadata=metadata)),
    }[method]
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = caught.value
    assert isinstance(error, grpc.Call)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "request-7" in error.details()
    assert "secret" not in error.details()
    status = rpc_status.from_call(error)
    assert status is not None
    info = RequestInfo()
    assert status.details[0].Unpack(info)
    assert info.request_id == "request-7"
    log = capsys.readouterr()
    assert "request-7" in log.out + log.err
    assert "ZeroDivisionError: secret" in log.out + log.err


def test_a_full_queue_says_when_to_come_back(
    servicer: Failing, stub: PredictionServiceStub
) -> None:
    """RESOURCE_EXHAUSTED carries RetryInfo, and gRPC's own retries are told too."""
    servicer.error = QueueFull("full", retry_after=0.25)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(pb.PredictRequest())
    error = caught.value
    assert isinstance(error, grpc.Call)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(error)
    assert status is not None
    info = RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.retry_delay.ToMilliseconds() == 250
    assert ("grpc-retry-pushback-ms", "250") in error.trailing_metadata()


def test_not_ready_is_unavailable(servicer: Failing, stub: PredictionServiceStub) -> None:
    """A server that cannot answer yet tells clients to try elsewhere or later."""
    servicer.error = NotReady("loading")
    with pytest.raises(grpc.RpcError, match="loading") as caught:
        stub.Predict(pb.PredictRequest())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
