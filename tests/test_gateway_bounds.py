"""What hostile or careless callers send costs a sentence, and neither memory nor other callers."""

import asyncio
import io
import json
import re
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Server, StartServer, until
from PIL import Image
from test_client_calls import Script, serving

JSON, PNG = "application/json", "image/png"
BLANK = [[0] * 28] * 28


def body(pixels: Any) -> bytes:
    """Returns a JSON body."""
    return json.dumps({"pixels": pixels}).encode()


def png(side: int, mode: str = "L") -> bytes:
    """Returns a picture with a stroke on it, of side × side pixels."""
    picture = Image.new(mode, (side, side), "white")
    picture.paste("black", (side // 2, side // 4, side // 2 + side // 10, side * 3 // 4))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def claims(side: int) -> bytes:
    """Returns a PNG that is what it claims to be, side × side pixels, in little more than that."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (side // 8 + 1)), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


# What is sent, as which content type and where to; the status, and what the sentence says.
HOSTILE: dict[str, tuple[str, str, bytes, int, str]] = {
    "27 rows": ("/predict", JSON, body(BLANK[:27]), 422, "28 rows of 28"),
    "27 columns": ("/predict", JSON, body([[0] * 27] * 28), 422, r"pixels\[0\].* 28 rows of 28"),
    "strings": ("/predict", JSON, body([["0"] * 28] * 28), 422, r"pixels\[0\]\[0\].*str"),
    "booleans": ("/predict", JSON, body([[True] * 28] * 28), 422, r"pixels\[0\]\[0\].*bool"),
    "null": ("/predict", JSON, body(None), 422, "pixels: .*null"),
    "bytes": ("/predict", JSON, body([[255] * 28] * 28), 422, "divide by 255"),
    "negative": ("/predict", JSON, body([[-1] * 28] * 28), 422, "from 0 .* to 1"),
    "NaN": ("/predict", JSON, body([[float("nan")] * 28] * 28), 400, "no NaN"),
    "Infinity": ("/predict", JSON, body([[float("inf")] * 28] * 28), 400, "no Infinity"),
    "1e999": ("/predict", JSON, b'{"pixels":[[1e999]]}', 422, r"pixels\[0\]\[0\].*range"),
    "1e300": ("/predict", JSON, body([[1e300] * 28] * 28), 422, r"out of \[0, 1\]"),
    "another field": ("/predict", JSON, b'{"pixel":[]}', 422, "unknown field `pixel`"),
    "nothing": ("/predict", JSON, b"", 400, "send JSON"),
    "half a body": ("/predict", JSON, body(BLANK)[:999], 400, "truncated"),
    "no UTF-8": ("/predict", JSON, b'{"\xff":1}', 400, "utf-8.*send JSON"),
    "a long name": ("/predict", JSON, b'{"' + b"x" * 200_000 + b'":1}', 422, "^.{,300}$"),
    "deep": ("/predict", JSON, b'{"pixels":' + b"[" * 200_000, 422, "Expected `float`"),
    "not JSON": ("/predict", "text/plain", body(BLANK), 415, "application/json"),
    "50 MB of JSON": ("/predict", JSON, bytes(50_000_000), 413, "at most 262,144 bytes"),
    "no images": ("/predict/batch", JSON, body([]), 422, "length >= 1"),
    "too many images": ("/predict/batch", JSON, body([BLANK] * 300), 422, "at most 256"),
    "8 MB of lists": ("/predict/batch", JSON, b'{"x":[' + b"[]," * 2_700_000, 422, "`x`"),
    "50 MB of images": ("/predict/batch", JSON, bytes(50_000_000), 413, "at most 8,388,608"),
    "SVG": ("/predict/image", "image/svg+xml", b"<svg/>", 415, "image/webp"),
    "SVG as PNG": ("/predict/image", PNG, b"<svg/>", 422, "no PNG, JPEG or WebP"),
    "half a PNG": ("/predict/image", PNG, png(1000)[:1000], 422, "truncated or damaged"),
    "an empty picture": ("/predict/image", PNG, b"", 422, "no PNG, JPEG or WebP"),
    "a white picture": ("/predict/image", PNG, claims(64), 422, "shows nothing"),
    "a bomb": ("/predict/image", PNG, claims(20_000), 422, "more than 12,582,912 pixels"),
    "a large bomb": ("/predict/image", PNG, claims(50_000)[:9000], 422, "12,582,912 pixels"),
    "50 MB of picture": ("/predict/image", PNG, bytes(50_000_000), 413, "at most 8,388,608"),
    "no form": ("/predict/image", "multipart/form-data", b"", 400, "boundary"),
    "an empty form": (
        "/predict/image",
        "multipart/form-data; boundary=x",
        b"--x--\r\n",
        400,
        "form is empty",
    ),
    "a form without file": (
        "/predict/image",
        "multipart/form-data; boundary=x",
        b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n',
        400,
        "one file and nothing else",
    ),
    "nowhere": ("/predict/nothing", JSON, b"", 404, "/docs lists"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_wrong_is_a_sentence(gateway: Server, name: str) -> None:
    """Each has the status that fits and a problem document that says what is wrong."""
    path, media_type, content, status, sentence = HOSTILE[name]
    headers = {"content-type": media_type}
    answer = httpx.post(gateway.address + path, content=content, headers=headers)
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert re.search(sentence, problem["detail"])
    assert problem["detail"].endswith(".")


def test_bodies_of_unknown_length_are_bounded_too(gateway: Server) -> None:
    """What comes in chunks is broken off where it is too much."""

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(50_000)

    headers = {"content-type": PNG}
    answer = httpx.post(f"{gateway.address}/predict/image", content=endless(), headers=headers)
    assert (answer.status_code, "at most" in answer.json()["detail"]) == (413, True)


def test_a_method_that_is_not_taken_says_so(gateway: Server) -> None:
    """GET where POST is meant is 405, and says what would be taken."""
    answer = httpx.get(f"{gateway.address}/predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["detail"] == "/predict does not take GET: /docs says what it takes."


def test_memory_stays_flat(gateway: Server) -> None:
    """All of it again and again takes little at its worst, and leaves next to nothing."""
    process = Path(f"/proc/{gateway.pid}")

    def mib(what: str) -> float:
        found = re.search(rf"{what}:\s+(\d+) kB", (process / "status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    def abuse(http: httpx.Client) -> None:
        for path, media_type, content, status, _ in HOSTILE.values():
            answer = http.post(path, content=content, headers={"content-type": media_type})
            assert answer.status_code == status

    with httpx.Client(base_url=gateway.address, timeout=60) as http:
        largest = png(3500, "RGB")
        answer = http.post("/predict/image", content=largest, headers={"content-type": PNG})
        assert answer.status_code == 200
        abuse(http)
        before = mib("VmRSS")
        (process / "clear_refs").write_text("5")  # forget the peak: proc(5)
        abuse(http)
        assert mib("VmHWM") - before < 64
        assert mib("VmRSS") - before < 32


def connected(gateway: Server) -> socket.socket:
    """Returns a plain connection to a gateway."""
    host, _, port = gateway.address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def test_headers_that_never_end_are_broken_off(gateway: Server) -> None:
    """Neither too many bytes of them nor a caller who never finishes is waited for."""
    idle, slow = connected(gateway), connected(gateway)
    slow.sendall(b"GET /healthz HTTP/1.1\r\n")
    with connected(gateway) as flood:
        flood.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):  # noqa: PT012 - whichever notices
            for _ in range(1000):
                flood.sendall(bytes(b"y" * 10_000))
                time.sleep(0.001)  # so that the gateway may answer
    for waiting in (idle, slow):
        with waiting:
            assert waiting.recv(1) == b""


def test_a_body_that_never_comes_is_not_waited_for(
    start_gateway: StartServer, server: Server
) -> None:
    """Who sends half a body is answered with 408 once the request has taken its time."""
    gateway = start_gateway("--server", server.address, "--timeout", "0.3")
    with connected(gateway) as half:
        half.sendall(
            b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        answer = b"".join(iter(lambda: half.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"The body did not come in time" in answer


def test_who_hangs_up_leaves_no_trace(gateway: Server) -> None:
    """A body that ends early is a caller gone, and nothing that the log need explain."""

    def refused() -> float:
        page = httpx.get(f"{gateway.address}/metrics").text
        sample = r'mnist_gateway_requests_total{path="/predict/batch",status="400"} (\S+)'
        return sum(map(float, re.findall(sample, page)))

    before, said = refused(), gateway.log.read_text()
    with connected(gateway) as half:
        half.sendall(
            b"POST /predict/batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{"
        )
    until(lambda: refused() > before)
    assert gateway.log.read_text() == said


def test_more_than_can_be_held_are_told_to_come_back(start_gateway: StartServer) -> None:
    """256 requests may wait for a server that is stuck; others get 429, and those are answered."""
    script = Script()
    script.held.clear()
    with serving(script) as address:
        gateway = start_gateway("--server", address, "--timeout", "60")

        async def ask() -> bytes:
            host, _, port = gateway.address.removeprefix("http://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            content = body(BLANK)
            writer.write(
                b"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                % (len(content), content)
            )
            answer = await reader.read()
            writer.close()
            if answer.startswith(b"HTTP/1.1 429 "):
                script.held.set()
            return answer

        async def crowd() -> list[bytes]:
            return await asyncio.gather(*(ask() for _ in range(300)))

        answers = asyncio.run(crowd())
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 429 ")]
    assert 0 < len(refused) <= 300 - 256
    assert sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers) == 300 - len(refused)
    assert b"retry-after: 1\r\n" in refused[0]
    assert b"as much to do as it takes" in refused[0]


def test_ill_formed_http_is_refused(gateway: Server) -> None:
    """What is no HTTP at all gets a 400, and the next caller an answer."""
    with connected(gateway) as stranger:
        stranger.sendall(np.random.default_rng(0).bytes(2000))
        assert stranger.recv(100).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{gateway.address}/healthz").status_code == 200
