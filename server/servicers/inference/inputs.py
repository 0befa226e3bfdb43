"""Reads the images out of a request."""

from collections.abc import Sequence
from reprlib import repr as shortened  # what is quoted may be megabytes
from typing import Any

import numpy as np
import numpy.typing as npt

from proto.inference import grpc_service_pb2 as pb
from server.errors import InvalidInput
from server.model import IMAGE_PIXELS, IMAGE_SHAPE, Floats
from server.servicers.common import in_range
from server.servicers.inference import parameters
from server.servicers.inference.tensors import INPUT

Array = npt.NDArray[Any]
InputTensor = pb.ModelInferRequest.InferInputTensor

# The model's own shape, the same without an axis for the one channel, and flat.
SHAPES = (IMAGE_SHAPE, IMAGE_SHAPE[1:], (IMAGE_PIXELS,))

# By datatype: an element in bytes, and the field of InferTensorContents that holds it.
DATATYPES: dict[str, tuple[np.dtype[Any], str]] = {
    "FP32": (np.dtype("<f4"), "fp32_contents"),
    "UINT8": (np.dtype("u1"), "uint_contents"),
}


def read(request: pb.ModelInferRequest, most: int) -> Floats:
    """Returns a request's images as float32 [n, 1, 28, 28] in [0, 1].

    Args:
        request: has one input, FP32 from 0 to 1 or UINT8 from 0 to 255, of the shape
            [n, 1, 28, 28], [n, 28, 28] or [n, 784].
        most: the largest n.

    Raises:
        InvalidInput: the input is anything else.
    """
    tensor = _only(request.inputs)
    if tensor.datatype not in DATATYPES:
        raise InvalidInput(
            "inputs[0].datatype",
            f"{shortened(tensor.datatype)} is not taken: send FP32 from 0 to 1, or UINT8 from 0 "
            "to 255.",
        )
    parameters.read(tensor.parameters, "inputs[0].parameters", parameters.INPUT)
    values = _images(tensor.shape, most) * IMAGE_PIXELS
    if request.raw_input_contents:
        field = "raw_input_contents[0]"
        array = _raw(request, tensor, values)
    else:
        field = f"inputs[0].contents.{DATATYPES[tensor.datatype][1]}"
        array = _typed(tensor, values)
    if tensor.datatype == "FP32":
        return in_range(array, field)
    if array.max() > np.iinfo(np.uint8).max:  # typed contents have room for more
        raise InvalidInput(field, f"{array.max()} is no UINT8: send values from 0 to 255.")
    return (array.astype(np.float32) / np.float32(255)).reshape(-1, *IMAGE_SHAPE)


def _only(inputs: Sequence[InputTensor]) -> InputTensor:
    for index, tensor in enumerate(inputs):
        if tensor.name != INPUT.name:
            raise InvalidInput(
                f"inputs[{index}].name",
                f"no input is named {shortened(tensor.name)}: send one, named {INPUT.name}.",
            )
    if len(inputs) != 1:
        raise InvalidInput("inputs", f"{INPUT.name} was sent {len(inputs)} times: send it once.")
    return inputs[0]


def _images(shape: Sequence[int], most: int) -> int:
    """Returns the n of a shape; nothing is multiplied that could overflow."""
    if tuple(shape[1:]) not in SHAPES:
        raise InvalidInput(
            "inputs[0].shape",
            f"{shortened(list(shape))} is none of [n, 1, 28, 28], [n, 28, 28] and [n, 784].",
        )
    if not 1 <= shape[0] <= most:
        raise InvalidInput(
            "inputs[0].shape", f"{shape[0]} images were sent: send from 1 to {most} in one call."
        )
    return shape[0]


def _raw(request: pb.ModelInferRequest, tensor: InputTensor, values: int) -> Array:
    contents = request.raw_input_contents
    if len(contents) != 1:
        raise InvalidInput(
            "raw_input_contents", f"{len(contents)} were sent for 1 input: send one for each."
        )
    if tensor.HasField("contents"):
        raise InvalidInput(
            "inputs[0].contents", "raw_input_contents were sent too: send one of the two."
        )
    data = contents[0]
    dtype = DATATYPES[tensor.datatype][0]
    if len(data) != values * dtype.itemsize:
        raise InvalidInput(
            "raw_input_contents[0]",
            f"{len(data)} bytes were sent: {tensor.datatype} of the shape {list(tensor.shape)} "
            f"takes {values * dtype.itemsize}.",
        )
    return np.frombuffer(data, dtype)


def _typed(tensor: InputTensor, values: int) -> Array:
    field = DATATYPES[tensor.datatype][1]
    for other, _ in tensor.contents.ListFields():
        if other.name != field:
            raise InvalidInput(
                f"inputs[0].contents.{other.name}",
                f"{tensor.datatype} goes into {field}: send it there, and nothing else.",
            )
    contents = getattr(tensor.contents, field)
    if len(contents) != values:
        raise InvalidInput(
            f"inputs[0].contents.{field}",
            f"{len(contents)} values were sent: the shape {list(tensor.shape)} takes {values}.",
        )
    return np.array(contents, np.float32 if tensor.datatype == "FP32" else np.uint32)
