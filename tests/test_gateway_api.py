"""What the gateway answers over HTTP, and what it passes on to the server."""

import io
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from conftest import Server, StartServer, log_line
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from test_client_calls import Script, serving, status

from client import DigitClient
from client.images import load, prepare
from client.samples import STROKES, draw
from proto.mnist.v1 import prediction_service_pb2 as pb

IMAGES = {digit: prepare(draw(digit)) for digit in STROKES}
ONE = {"pixels": IMAGES[1].tolist()}


@pytest.fixture(scope="module")
def http(gateway: Server) -> Iterator[httpx.Client]:
    """Who asks the gateway before the real server."""
    with httpx.Client(base_url=gateway.address) as http:
        yield http


@pytest.fixture(scope="module")
def stage(start_gateway: StartServer) -> Iterator[tuple[Script, httpx.Client]]:
    """A scripted server, and who asks a gateway before it."""
    script = Script()
    with serving(script) as address:
        gateway = start_gateway("--server", address)
        with httpx.Client(base_url=gateway.address, timeout=30) as http:
            yield script, http


@pytest.fixture
def scripted(stage: tuple[Script, httpx.Client]) -> Iterator[tuple[Script, httpx.Client]]:
    """The same, with a script that holds nothing back yet."""
    yield stage
    script, _ = stage
    script.failures.clear()
    script.left.clear()
    script.held.set()


def file_of(digit: int, kind: str) -> bytes:
    """Returns a drawn digit as a file."""
    file = io.BytesIO()
    draw(digit).save(file, kind, quality=95)
    return file.getvalue()


@pytest.mark.parametrize("digit", IMAGES)
def test_a_prediction_is_the_servers(http: httpx.Client, server: Server, digit: int) -> None:
    """REST and gRPC say the same, to the last bit."""
    answer = http.post("/predict", json={"pixels": IMAGES[digit].tolist()}).json()
    with DigitClient(server.address) as client:
        expected = client.predict(IMAGES[digit])
    assert answer == {
        "predicted_digit": digit,
        "confidence": expected.confidence,
        "probabilities": expected.probabilities.tolist(),
        "model": "digitnet",
        "model_version": 1,
    }


def test_a_batch_keeps_its_order(http: httpx.Client) -> None:
    """Each image of a batch has its prediction, in its place."""
    images = [IMAGES[digit].tolist() for digit in (3, 1, 4, 1, 5)]
    answer = http.post("/predict/batch", json={"pixels": images}).json()
    assert [one["predicted_digit"] for one in answer["predictions"]] == [3, 1, 4, 1, 5]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_prepared(http: httpx.Client, kind: str) -> None:
    """As a body or in a form, it is answered with what the model saw, as the client prepares it."""
    content = file_of(7, kind)
    as_body = http.post(
        "/predict/image", content=content, headers={"content-type": f"image/{kind.lower()}"}
    ).json()
    in_form = http.post("/predict/image", files={"image": content}).json()
    assert as_body == in_form
    assert as_body["predicted_digit"] == 7
    seen = np.array(as_body["pixels"], np.float32)
    assert np.array_equal(seen, prepare(load(io.BytesIO(content))))


def test_a_large_file_fits_in_a_form(http: httpx.Client) -> None:
    """A file of several megabytes is taken whole."""
    noise = np.random.default_rng(0).integers(200, 256, (1400, 1400), np.uint8)
    picture = draw(4, 1400)
    picture.putdata(np.minimum(noise, np.asarray(picture)).ravel())
    file = io.BytesIO()
    picture.save(file, "PNG")
    assert file.tell() > 1 << 20
    answer = http.post("/predict/image", files={"image": file.getvalue()}).json()
    assert answer["predicted_digit"] == 4


@pytest.mark.parametrize("side", [100, 280, 1000])
@pytest.mark.parametrize("thickness", [0.03, 0.12], ids=["thin", "thick"])
@pytest.mark.parametrize("tilt", [0, 10], ids=["straight", "tilted"])
def test_how_a_digit_is_drawn_does_not_matter(
    http: httpx.Client, side: int, thickness: float, tilt: int
) -> None:
    """Large or small, thick or thin, off the centre or tilted, a two is a two."""
    picture = draw(2, side, thickness).rotate(
        tilt, fillcolor="white", translate=(side // 8, -side // 10)
    )
    file = io.BytesIO()
    picture.save(file, "PNG")
    answer = http.post("/predict/image", files={"image": file.getvalue()}).json()
    assert answer["predicted_digit"] == 2


def test_the_models_are_the_servers(http: httpx.Client, server: Server) -> None:
    """Each version is listed with all that the server knows of it."""
    (model,) = http.get("/models").json()["models"]
    with DigitClient(server.address) as client:
        (expected,) = client.models()
    assert set(model) == set(expected.__slots__)
    assert (model["name"], model["version"], model["ready"]) == ("digitnet", 1, True)
    assert model["git_commit"] == expected.git_commit


def test_a_model_can_be_chosen(http: httpx.Client) -> None:
    """The name and version of the query are the server's to find."""
    for path, query in (("/predict", "model=digitnet&version=1"), ("/samples", "version=1")):
        method = "GET" if path == "/samples" else "POST"
        assert http.request(method, f"{path}?{query}", json=ONE).status_code == 200
    problem = http.post("/predict?version=9", json=ONE)
    assert (problem.status_code, "version 9" in problem.json()["detail"]) == (404, True)


def test_the_samples_are_recognised(http: httpx.Client) -> None:
    """The gallery holds ten digits, what the model sees in each, and how each is written."""
    samples = http.get("/samples").json()["samples"]
    assert [one["digit"] for one in samples] == list(range(10))
    assert [one["predicted_digit"] for one in samples] == list(range(10))
    for sample in samples:
        assert np.array_equal(np.array(sample["pixels"], np.float32), IMAGES[sample["digit"]])
        assert np.array(sample["strokes"][0]).shape[1] == 2


def test_browsers_get_pages(http: httpx.Client) -> None:
    """Pages and their parts are there, and the gallery is one for who wants HTML."""
    accept = {"accept": "text/html,application/xhtml+xml"}
    for path in ("/", "/docs", "/samples"):
        page = http.get(path, headers=accept)
        assert page.headers["content-type"].startswith("text/html")
    assert http.get("/static/draw.js").headers["content-type"].startswith("text/javascript")
    assert http.get("/static/../app.py").status_code == 404
    assert http.get("/static/%2e%2e/app.py").status_code == 404


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_can_be_asked_about(http: httpx.Client, path: str) -> None:
    """HEAD is answered as GET is, without a body."""
    asked, got = http.head(path), http.get(path)
    ours = {"x-request-id", "date"}  # of each request
    assert (asked.status_code, asked.content) == (200, b"")
    assert [one for one in asked.headers.multi_items() if one[0] not in ours] == [
        one for one in got.headers.multi_items() if one[0] not in ours
    ]


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/samples", "/static/draw.js", "/models", "/nothing", "/predict"]
)
def test_browsers_are_held_to_our_origin(http: httpx.Client, path: str) -> None:
    """Everything has the headers that keep other origins out, problems too."""
    headers = http.get(path, headers={"accept": "text/html"}).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


def test_a_request_id_goes_all_the_way(http: httpx.Client, server: Server) -> None:
    """The caller's own id is in the answer, in a problem and in the server's log."""
    answer = http.post("/predict", json=ONE, headers={"x-request-id": "from-the-caller"})
    assert answer.headers["x-request-id"] == "from-the-caller"
    assert "code=OK" in log_line(server, "request_id=from-the-caller ")
    problem = http.post("/predict?model=none", json=ONE, headers={"x-request-id": "who-else"})
    assert problem.json()["request_id"] == problem.headers["x-request-id"] == "who-else"
    assert "code=NOT_FOUND" in log_line(server, "request_id=who-else ")


@pytest.mark.parametrize("given", ["", "a,b", "x" * 65, "two words", "Zähler"])
def test_what_can_be_no_request_id_is_replaced(http: httpx.Client, given: str) -> None:
    """An id that a log could not hold is not taken; there always is one."""
    answer = http.get("/models", headers={b"x-request-id": given.encode("latin-1")})
    assert len(answer.headers["x-request-id"]) == 16


def test_a_trace_goes_on(scripted: tuple[Script, httpx.Client]) -> None:
    """A traceparent reaches the server with every kind of call, and what is none does not."""
    script, http = scripted
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for given, expected in ((trace, trace), ("none", None)):
        headers = {"traceparent": given}
        for path, body in (
            ("/predict", ONE),
            ("/predict/batch", {"pixels": [ONE["pixels"]]}),
            ("/models", None),
        ):
            method = "POST" if body else "GET"
            http.request(method, path, json=body, headers=headers).raise_for_status()
            assert script.metadata.get("traceparent") == expected


VIOLATION = BadRequest(
    field_violations=[BadRequest.FieldViolation(field="pixels", description="divide by 255")]
)
RETRY = RetryInfo(retry_delay=Duration(seconds=2, nanos=100_000_000))
STATUSES = {
    "INVALID_ARGUMENT": (422, VIOLATION),
    "NOT_FOUND": (404, None),
    "RESOURCE_EXHAUSTED": (429, RETRY),
    "UNAVAILABLE": (503, None),
    "DEADLINE_EXCEEDED": (504, None),
    "UNAUTHENTICATED": (502, None),
    "INTERNAL": (502, None),
}


# What gRPC says of these is about addresses, or about the gateway's own token.
WITHHELD = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "UNAUTHENTICATED"}


@pytest.mark.parametrize("code", STATUSES)
def test_each_status_becomes_a_problem(scripted: tuple[Script, httpx.Client], code: str) -> None:
    """What gRPC says is a problem document of the right status, with all that helps."""
    script, http = scripted
    expected, detail = STATUSES[code]
    number = grpc.StatusCode[code].value[0]
    script.failures = [status(number, "It is so.", *([detail] if detail else []))] * 5
    answer = http.post("/predict", json=ONE)
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (expected, expected)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["type"], bool(problem["title"])) == ("about:blank", True)
    assert problem["detail"].endswith(".")
    assert ("It is so." in problem["detail"]) == (code not in WITHHELD)
    assert problem["violations"] == (
        [{"field": "pixels", "description": "divide by 255"}] if detail is VIOLATION else []
    )
    assert answer.headers.get("retry-after") == {429: "3", 503: "1"}.get(expected)


def test_ready_is_what_the_server_is(start_gateway: StartServer) -> None:
    """Without a server the gateway is alive and not ready; with one that serves it is both."""
    script = Script()
    with serving(script) as address:
        gateway = start_gateway("--server", address)
        assert httpx.get(f"{gateway.address}/readyz").json() == {"status": "ready"}
        script.health.enter_graceful_shutdown()
        assert httpx.get(f"{gateway.address}/readyz").status_code == 503
    assert httpx.get(f"{gateway.address}/readyz").status_code == 503
    assert httpx.get(f"{gateway.address}/healthz").json() == {"status": "alive"}


def test_a_deadline_is_passed_on(scripted: tuple[Script, httpx.Client]) -> None:
    """Who gives up after 200 ms is told so then, and the server need not go on."""
    script, http = scripted
    script.held.clear()
    answer = http.post("/predict", json=ONE, headers={"grpc-timeout": "200m"})
    assert answer.status_code == 504
    assert script.left.wait(10)
    unknown = http.post("/predict", json=ONE, headers={"grpc-timeout": "soon"})
    assert (unknown.status_code, "500m" in unknown.json()["detail"]) == (400, True)


class Mute(Script):
    """Answers batches with nothing, which no server of ours does."""

    def PredictBatch(self, request: Any, context: Any) -> pb.PredictBatchResponse:
        """Sees no image."""
        return pb.PredictBatchResponse()


def test_the_unforeseen_is_told_to_the_log_alone(start_gateway: StartServer) -> None:
    """What nobody foresaw is a 500 with an id, by which the log has its trace."""
    with serving(Mute()) as address:
        gateway = start_gateway("--server", address)
        answer = httpx.get(f"{gateway.address}/samples", headers={"x-request-id": "seek-me"})
    assert answer.status_code == answer.json()["status"] == 500
    assert answer.json()["detail"].endswith("its log says why, under seek-me.")
    assert "content-security-policy" in answer.headers
    assert log_line(gateway, "request seek-me failed")
    assert "ValueError: zip() argument" in gateway.log.read_text()


def test_requests_are_counted(http: httpx.Client) -> None:
    """/metrics counts requests by path and status, and never a path that someone made up."""

    def counted() -> dict[str, float]:
        lines = http.get("/metrics").text.splitlines()
        values = (line.rpartition(" ") for line in lines if line.startswith("mnist_gateway"))
        return {sample: float(value) for sample, _, value in values}

    before = counted()
    http.post("/predict", json=ONE)
    http.post("/predict", json={})
    http.get("/made-up")
    after = counted()

    def grew(sample: str) -> float:
        return after[sample] - before.get(sample, 0)

    assert grew('mnist_gateway_requests_total{path="/predict",status="200"}') == 1
    assert grew('mnist_gateway_requests_total{path="/predict",status="422"}') == 1
    assert grew('mnist_gateway_request_seconds_count{path="/predict"}') == 2
    assert grew('mnist_gateway_requests_total{path="other",status="404"}') == 1
    assert not [sample for sample in after if "made-up" in sample]
