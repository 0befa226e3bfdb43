"""Load from h2load, which costs little beside the server it loads: Debian's nghttp2-client."""

import json
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from proto.inference import grpc_service_pb2 as inference_pb
from proto.mnist.v1 import prediction_service_pb2 as pb

SERVICES = {
    "Predict": "mnist.v1.PredictionService",
    "PredictBatch": "mnist.v1.PredictionService",
    "ModelInfer": "inference.GRPCInferenceService",
}


@dataclass(frozen=True)
class Load:
    """What one run of h2load found.

    Attributes:
        per_second: calls a second.
        p50_us: the median call's latency, in microseconds.
    """

    per_second: float
    p50_us: float


def body(method: str, images: int) -> bytes:
    """Returns a call's bytes as gRPC frames them: a flag, the length, the message."""
    pixels = np.random.default_rng(0).random(images * 784, np.float32)
    message = _request(method, pixels).SerializeToString()
    return struct.pack(">BI", 0, len(message)) + message


def _request(method: str, pixels: Any) -> Message:
    if method == "Predict":
        return pb.PredictRequest(pixels=pixels)
    if method == "PredictBatch":
        return pb.PredictBatchRequest(pixels=pixels)
    # As Triton's client sends it: raw, and naming no output, which asks for all.
    tensor = inference_pb.ModelInferRequest.InferInputTensor(
        name="pixels", datatype="FP32", shape=(len(pixels) // 784, 1, 28, 28)
    )
    return inference_pb.ModelInferRequest(
        model_name="tiny", inputs=[tensor], raw_input_contents=[pixels.tobytes()]
    )


def load(  # noqa: PLR0913 - h2load's own knobs, told apart by name
    port: int,
    method: str,
    *,
    calls: int,
    connections: int,
    streams: int,
    cpu: int,
    images: int = 1,
) -> Load:
    """Sends `calls` calls over `connections` × `streams` at a time, from one CPU.

    Raises:
        SystemExit: h2load is not installed, or not every call was answered with OK.
    """
    output, microseconds = _run(
        *("-n", str(calls), "-c", str(connections), "-m", str(streams)),
        *("-H", "content-type: application/grpc", "-H", "te: trailers"),
        f"http://127.0.0.1:{port}/{SERVICES[method]}/{method}",
        body=body(method, images),
        cpu=cpu,
    )
    data = re.search(r"\((\d+)\) data", output)
    # To h2load a failure of gRPC's is a success without data. Answers to the same
    # question are of one length, so a missing one shows in the sum.
    if data is None or int(data[1]) == 0 or int(data[1]) % calls:
        raise SystemExit(f"Not every call was answered with OK:\n{output}")
    return _found(output, microseconds)


def load_http(port: int, *, requests: int, connections: int, cpu: int) -> Load:
    """Posts an image as JSON to /predict so often, over HTTP/1.1, from one CPU.

    Raises:
        SystemExit: h2load is not installed, or not every request was answered with 200.
    """
    image = np.random.default_rng(0).random((28, 28), np.float32)
    output, microseconds = _run(
        *("--h1", "-n", str(requests), "-c", str(connections)),
        *("-H", "content-type: application/json"),
        f"http://127.0.0.1:{port}/predict",
        body=json.dumps({"pixels": image.tolist()}).encode(),
        cpu=cpu,
    )
    if f"status codes: {requests} 2xx" not in output:
        raise SystemExit(f"Not every request was answered with 200:\n{output}")
    return _found(output, microseconds)


def _run(*arguments: str, body: bytes, cpu: int) -> tuple[str, npt.NDArray[np.int64]]:
    """Returns what h2load printed, and what each call took, in microseconds."""
    h2load = shutil.which("h2load")
    if h2load is None:
        raise SystemExit("h2load is missing: install Debian's nghttp2-client.")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "body").write_bytes(body)
        files = ("-d", f"{folder}/body", "--log-file", f"{folder}/log")
        process = subprocess.run(
            [*("taskset", "--cpu-list", str(cpu), h2load), *files, *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        # A line for each call: when it began, its HTTP status, its microseconds.
        log = np.loadtxt(f"{folder}/log", dtype=np.int64, ndmin=2)
    return process.stdout, log[:, 2]


def _found(output: str, microseconds: npt.NDArray[np.int64]) -> Load:
    rate = re.search(r"([\d.]+) req/s", output)
    if rate is None:
        raise SystemExit(f"h2load names no rate:\n{output}")
    return Load(float(rate[1]), float(np.median(microseconds)))
