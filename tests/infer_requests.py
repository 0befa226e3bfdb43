"""Requests of the Open Inference Protocol that are good, and what comes back."""

from typing import Any

import numpy as np

from proto.inference import grpc_service_pb2 as pb

IMAGES = np.random.default_rng(0).random((8, 784), np.float32)
BYTES = np.random.default_rng(0).integers(0, 256, (8, 784), np.uint8)

Request = pb.ModelInferRequest

_DTYPES = {"FP32": "<f4", "INT64": "<i8"}


def request(
    images: Any = IMAGES[:1], layout: tuple[int, ...] = (1, 28, 28), *, raw: bool = True
) -> Request:
    """A good request for images [n, 784], float32 or uint8."""
    datatype, field = {
        "float32": ("FP32", "fp32_contents"),
        "uint8": ("UINT8", "uint_contents"),
    }[images.dtype.name]
    tensor = Request.InferInputTensor(
        name="pixels", datatype=datatype, shape=(len(images), *layout)
    )
    if raw:
        contents = [images.tobytes()]
        return Request(model_name="digitnet", inputs=[tensor], raw_input_contents=contents)
    getattr(tensor.contents, field).extend(images.ravel().tolist())
    return Request(model_name="digitnet", inputs=[tensor])


def arrays(response: pb.ModelInferResponse) -> dict[str, Any]:
    """A response's outputs by name, raw or typed."""
    found = {}
    for index, output in enumerate(response.outputs):
        dtype = _DTYPES[output.datatype]
        if response.raw_output_contents:
            assert not output.HasField("contents")
            array = np.frombuffer(response.raw_output_contents[index], dtype)
        else:
            contents = output.contents
            array = np.array(contents.fp32_contents or contents.int64_contents, dtype)
        found[output.name] = array.reshape(output.shape)
    return found
