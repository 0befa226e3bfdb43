"""Puts the outputs that were asked for into a response."""

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from reprlib import repr as shortened  # what is quoted may be megabytes
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from proto.inference import grpc_service_pb2 as pb
from server.errors import InvalidInput
from server.model import Answers, Floats
from server.servicers.inference import parameters
from server.servicers.inference.tensors import DIGIT, LOGITS, OUTPUTS, Tensor

OutputTensor = pb.ModelInferRequest.InferRequestedOutputTensor

# The field of InferTensorContents that holds an element, by datatype.
CONTENTS = {"FP32": "fp32_contents", "INT64": "int64_contents"}


class Wanted(NamedTuple):
    """An output that was asked for.

    Attributes:
        classes: how many of the largest elements, as Triton's classification has
            them; 0 for all elements as they are.
    """

    output: Tensor
    classes: int = 0


ALL = tuple(Wanted(output) for output in OUTPUTS)
BY_NAME = {output.name: output for output in OUTPUTS}


def wanted(outputs: Sequence[OutputTensor]) -> tuple[Wanted, ...]:
    """Returns what a request asks for, in its order; all outputs where it names none.

    Raises:
        InvalidInput: an output is unknown, named twice, or its parameters are wrong.
    """
    if not outputs:
        return ALL
    chosen: dict[str, Wanted] = {}
    for index, requested in enumerate(outputs):
        name, field = requested.name, f"outputs[{index}]"
        if name not in BY_NAME:
            raise InvalidInput(
                f"{field}.name",
                f"no output is named {shortened(name)}; there are: {', '.join(BY_NAME)}.",
            )
        if name in chosen:
            raise InvalidInput(f"{field}.name", f"{name} is asked for twice: ask once.")
        where = f"{field}.parameters"
        found = parameters.read(requested.parameters, where, parameters.OUTPUT)
        classes = found.get("classification", 0)
        if classes and name == DIGIT.name:
            raise InvalidInput(where, "digit is a class already: classify logits or probabilities.")
        chosen[name] = Wanted(BY_NAME[name], classes)
    return tuple(chosen.values())


def response(answers: Answers, outputs: tuple[Wanted, ...], *, raw: bool) -> pb.ModelInferResponse:
    """Returns the outputs, as little-endian bytes or in their typed fields."""
    response = pb.ModelInferResponse()
    response.CopyFrom(_described(outputs, len(answers.logits)))
    for index, (output, classes) in enumerate(outputs):
        values = _values(answers, output)
        if classes:
            strings = _largest(values, classes)
            if raw:
                response.raw_output_contents.append(_framed(strings))
            else:
                response.outputs[index].contents.bytes_contents.extend(strings)
        elif raw:
            response.raw_output_contents.append(values.tobytes())
        else:
            field = CONTENTS[output.datatype]
            getattr(response.outputs[index].contents, field).extend(values.ravel().tolist())
    return response


@lru_cache(maxsize=256)
def _described(outputs: tuple[Wanted, ...], images: int) -> pb.ModelInferResponse:
    """Returns names, datatypes and shapes, which would take longer to make than all the rest."""
    response = pb.ModelInferResponse()
    for output, classes in outputs:
        datatype, shape = output.datatype, output.shape
        if classes:
            datatype, shape = "BYTES", (min(classes, *shape),)
        response.outputs.add(name=output.name, datatype=datatype, shape=(images, *shape))
    return response


def _values(answers: Answers, output: Tensor) -> npt.NDArray[Any]:
    if output is LOGITS:
        return answers.logits
    return answers.logits.argmax(axis=1) if output is DIGIT else answers.probabilities


def _largest(values: Floats, classes: int) -> list[bytes]:
    """Returns strings such as "0.998000:7", the largest value of each image first.

    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
    """
    order = np.argsort(-values, axis=1, kind="stable")[:, :classes]
    return [
        f"{row[index]:f}:{index}".encode()
        for row, best in zip(values, order, strict=True)
        for index in best
    ]


def _framed(strings: Iterable[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(string)) + string for string in strings)
