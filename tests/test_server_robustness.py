"""Callers who are many, slow, broken, rude or gone, and what the others notice of them: nothing."""

import resource
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import grpc
import numpy as np
import pytest
from callers import asking, digit_client
from conftest import Server, StartServer, connections, scrape, until
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from infer_requests import request as infer_request

from proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub

REQUEST = pb.PredictRequest(pixels=np.zeros(784))
STREAM_REQUEST = pb.PredictStreamRequest(pixels=REQUEST.pixels)
BIG_BATCH = 2048  # images: keeps the model busy for long enough to see what waits behind it
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]

# HTTP/2, RFC 9113: the preface, and frames of length, type, flags and stream.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ENHANCE_YOUR_CALM = 11


def frame(kind: int, payload: bytes = b"") -> bytes:
    """A frame of the connection itself."""
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + payload


def connect(server: Server) -> socket.socket:
    """A bare connection."""
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


@pytest.fixture
def stub(server: Server) -> Iterator[PredictionServiceStub]:
    """A stub of the bundled model's server, on a connection of its own."""
    with grpc.insecure_channel(server.address, OWN_CONNECTION) as channel:
        yield PredictionServiceStub(channel)


def retry_delay(error: Any) -> float:
    """The seconds after which a refused caller may come back, as the error's details say."""
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(error)
    assert status is not None, error.details()
    info = RetryInfo()
    assert status.details[0].Unpack(info)
    return float(info.retry_delay.ToTimedelta().total_seconds())


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for a thousand connections, here and in the servers that are started from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 4096
    if soft < needed:
        if hard < needed:
            pytest.skip(f"this machine allows {hard} open files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_thousand_connections_are_served(start_server: StartServer, bundled_models: Path) -> None:
    """While all of them are open, each has its call answered."""
    server = start_server("--models", str(bundled_models))
    with ExitStack() as stack:
        stubs = [
            PredictionServiceStub(
                stack.enter_context(grpc.insecure_channel(server.address, OWN_CONNECTION))
            )
            for _ in range(1000)
        ]
        with ThreadPoolExecutor(32) as pool:
            for _ in range(2):  # when the second round begins, all are connected
                answers = list(pool.map(lambda stub: stub.Predict(REQUEST, timeout=60), stubs))
                assert len(answers) == 1000


def test_a_slow_reader_holds_up_nobody(server: Server, stub: PredictionServiceStub) -> None:
    """A stream whose answers nobody reads comes to a standstill, and goes on when they are."""
    sent = 0
    leaving = threading.Event()

    def requests() -> Iterator[pb.PredictStreamRequest]:
        nonlocal sent
        while not leaving.is_set():
            sent += 1
            yield STREAM_REQUEST

    def stands_still() -> bool:
        before = sent
        for _ in range(50):
            assert stub.Predict(REQUEST, timeout=30).model == "digitnet"
        return before == sent > 0

    small_window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]
    with grpc.insecure_channel(server.address, [*OWN_CONNECTION, *small_window]) as channel:
        slow = PredictionServiceStub(channel).PredictStream(requests())
        until(stands_still)
        leaving.set()
        assert sum(1 for _ in slow) == sent


def test_half_open_connections_hold_up_nobody(server: Server, stub: PredictionServiceStub) -> None:
    """Connections that say nothing, or no more than hello, or nonsense, are nobody's trouble."""
    hellos = (b"", PREFACE[:10], PREFACE, PREFACE + frame(SETTINGS), b"\x16\x03\x01" + bytes(99))
    garbage = (b"GET / HTTP/1.1\r\n\r\n", np.random.default_rng(0).bytes(4096))
    with ExitStack() as stack:
        for hello in (*hellos, *garbage) * 20:
            stack.enter_context(connect(server)).sendall(hello)
        for _ in range(100):
            assert stub.Predict(REQUEST, timeout=30).model == "digitnet"
        with grpc.insecure_channel(server.address, OWN_CONNECTION) as channel:
            assert PredictionServiceStub(channel).Predict(REQUEST, timeout=30).model == "digitnet"


def test_streams_are_bounded(server: Server, stub: PredictionServiceStub) -> None:
    """With all open, one more is told when to come back; calls go on; one that ends makes room.

    The bound is for the streams of both protocols together.
    """
    other = GRPCInferenceServiceStub(grpc.insecure_channel(server.address))
    most = 64
    leaving = [threading.Event() for _ in range(most)]

    def requests(event: threading.Event) -> Iterator[pb.PredictStreamRequest]:
        yield STREAM_REQUEST
        event.wait()

    streams = [stub.PredictStream(requests(event)) for event in leaving]
    for stream in streams:
        assert next(stream).WhichOneof("outcome") == "prediction"
    for one_more in (
        stub.PredictStream(iter([STREAM_REQUEST])),
        other.ModelStreamInfer(iter([infer_request()])),
    ):
        with pytest.raises(grpc.RpcError, match="All 64 streams are taken") as caught:
            next(one_more)
        assert retry_delay(caught.value) > 0
    assert stub.Predict(REQUEST).model == "digitnet"
    leaving[0].set()
    assert list(streams[0]) == []
    (answer,) = other.ModelStreamInfer(iter([infer_request()]))
    assert not answer.error_message
    for event, stream in zip(leaving, streams, strict=True):
        event.set()
        stream.cancel()


def test_reflection_calls_are_bounded(server: Server, stub: PredictionServiceStub) -> None:
    """With all open, one more is refused; predictions go on; one that ends makes room."""
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    leaving = threading.Event()

    def ask() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield question
        leaving.wait()

    with grpc.insecure_channel(server.address, OWN_CONNECTION) as channel:
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        open_calls = [reflection.ServerReflectionInfo(ask()) for _ in range(16)]
        for call in open_calls:
            assert next(call).list_services_response.service
        with pytest.raises(grpc.RpcError, match="All 16 reflection calls are taken") as caught:
            next(reflection.ServerReflectionInfo(iter([question])))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert stub.Predict(REQUEST).model == "digitnet"
        leaving.set()
        assert [list(call) for call in open_calls] == [[]] * 16
        assert next(reflection.ServerReflectionInfo(iter([question]))).list_services_response


def test_abusive_pings_are_cut_off(server: Server, stub: PredictionServiceStub) -> None:
    """A connection that pings without a pause is told to calm down and closed; others go on."""
    with connect(server) as rude:
        rude.sendall(PREFACE + frame(SETTINGS) + frame(PING, bytes(8)) * 10)
        heard = b"".join(iter(lambda: rude.recv(1 << 16), b""))
    goaway = heard[heard.index(b"too_many_pings") - 17 :]
    assert goaway[3] == GOAWAY
    assert struct.unpack(">I", goaway[13:17]) == (ENHANCE_YOUR_CALM,)
    assert stub.Predict(REQUEST).model == "digitnet"


def test_connections_come_again_without_a_failed_call(
    start_server: StartServer, bundled_models: Path
) -> None:
    """After --max-connection-age the caller is asked to reconnect, and no call is lost by it."""
    server = start_server("--models", str(bundled_models), "--max-connection-age", "0.1")
    peers: set[str] = set()
    with grpc.insecure_channel(server.address, OWN_CONNECTION) as channel:
        stub = PredictionServiceStub(channel)

        def came_again() -> bool:
            assert stub.Predict(REQUEST, timeout=30).model == "digitnet"
            peers.update(connections(server).values())
            return len(peers) > 3

        until(came_again)


@contextmanager
def busy(server: Server, callers: int) -> Iterator[Counter[grpc.StatusCode]]:
    """Keeps the model running one big batch after the other. Yields how they ended."""
    request = pb.PredictBatchRequest(pixels=np.zeros(BIG_BATCH * 784, np.float32))
    options = [*OWN_CONNECTION, ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.address, options) as channel:
        stub = PredictionServiceStub(channel)
        with asking(lambda: stub.PredictBatch.future(request).code(), callers) as outcomes:
            yield outcomes


def dropped(server: Server, reason: str) -> float:
    """How many calls were never run for a reason, as /metrics has it."""
    return scrape(server)[f'mnist_dropped_total{{model="digitnet",reason="{reason}"}}']


def test_neighbours_of_the_gone_are_answered(
    start_server: StartServer, bundled_models: Path
) -> None:
    """Calls that are cancelled or expire in the queue are counted, and no one else notices."""
    flags = ("--models", str(bundled_models), "--metrics-port", "0", "--max-batch", str(BIG_BATCH))
    server = start_server(*flags)
    with (
        grpc.insecure_channel(server.address) as channel,
        busy(server, callers=2) as outcomes,
        ThreadPoolExecutor(4) as pool,
    ):
        stub = PredictionServiceStub(channel)
        codes: set[grpc.StatusCode] = set()

        def one_expires() -> bool:
            codes.add(stub.Predict.future(REQUEST, timeout=0.01).code())
            return dropped(server, "expired") >= 3

        def one_is_cancelled() -> bool:
            call = stub.Predict.future(REQUEST)
            until(lambda: scrape(server)['mnist_queue_depth{model="digitnet"}'] or call.done())
            call.cancel()
            return dropped(server, "cancelled") >= 3

        neighbours = [pool.submit(neighbour, stub, 10) for _ in range(4)]
        until(one_expires)
        until(one_is_cancelled)
        assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}
        assert [future.result() for future in neighbours] == [10] * 4
    assert set(outcomes) == {grpc.StatusCode.OK}


def neighbour(stub: PredictionServiceStub, calls: int) -> int:
    """Calls one after the other, and returns how many were answered."""
    return sum(stub.Predict(REQUEST, timeout=60).model == "digitnet" for _ in range(calls))


def test_a_full_queue_says_when_to_come_back(
    start_server: StartServer, bundled_models: Path
) -> None:
    """What finds no place is refused with RetryInfo, every time; health answers meanwhile."""
    flags = ("--models", str(bundled_models), "--metrics-port", "0")
    server = start_server(*flags, "--max-batch", str(BIG_BATCH), "--max-queue", "1")
    with grpc.insecure_channel(server.address) as channel, busy(server, callers=3) as outcomes:
        stub = PredictionServiceStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        until(lambda: outcomes[grpc.StatusCode.RESOURCE_EXHAUSTED])
        calls = [stub.Predict.future(REQUEST, timeout=60) for _ in range(200)]
        checked = health.Check(health_pb2.HealthCheckRequest(service=""), timeout=60)
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        refused = [call for call in calls if call.code() is not grpc.StatusCode.OK]
    assert refused
    assert all(retry_delay(call) > 0 for call in refused)
    assert set(outcomes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert dropped(server, "queue_full") >= len(refused)


def go_on_calling(stub: PredictionServiceStub) -> NoReturn:
    """Calls until a call fails."""
    while True:
        stub.Predict(REQUEST)


def test_leaving_is_said_before_it_is_done(start_server: StartServer, bundled_models: Path) -> None:
    """Calls are answered while health says NOT_SERVING, then refused, by the same connection."""
    server = start_server("--models", str(bundled_models), "--drain-seconds", "100")
    with grpc.insecure_channel(server.address) as channel:
        stub = PredictionServiceStub(channel)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.process.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert stub.Predict(REQUEST).model == "digitnet"
        with pytest.raises(grpc.RpcError, match="The server is leaving") as caught:
            go_on_calling(stub)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        watch.cancel()
    assert server.process.wait(30) == 0


def test_a_rolling_restart_loses_no_call(start_server: StartServer, bundled_models: Path) -> None:
    """Two servers are replaced one after the other behind one client that never stops asking."""
    flags = ("--models", str(bundled_models))
    servers = [start_server(*flags) for _ in range(2)]
    ports = [server.address.rpartition(":")[2] for server in servers]
    target = "ipv4:" + ",".join(server.address for server in servers)
    with digit_client(target) as ask, asking(ask, 16) as outcomes:
        for index, port in [*enumerate(ports)] * 2:
            answered = outcomes.total()
            until(lambda: outcomes.total() > answered + 200)  # noqa: B023 - called at once
            assert servers[index].stop() == 0
            servers[index] = start_server(*flags, "--port", port)
    assert {outcome.split()[0] for outcome in outcomes} == {"1"}
