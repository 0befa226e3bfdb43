"""Puts the outputs that were asked for into a response."""

import struct
from collections.abc import Sequence
from reprlib import repr as shortened  # what is quoted may be megabytes
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from proto.inference import grpc_service_pb2 as pb
from server.errors import InvalidInput
from server.model import Answers, Floats
from server.servicers.inference import parameters
from server.servicers.inference.tensors import DIGIT, LOGITS, OUTPUTS, Tensor

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


def wanted(outputs: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor]) -> Sequence[Wanted]:
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


def write(
    response: pb.ModelInferResponse, answers: Answers, outputs: Sequence[Wanted], *, raw: bool
) -> None:
    """Adds outputs to a response, as little-endian bytes or in their typed fields."""
    for output, classes in outputs:
        array = _array(answers, output)
        if classes:
            _write_classes(response, output.name, array, classes, raw=raw)
            continue
        tensor = response.outputs.add(name=output.name, datatype=output.datatype, shape=array.shape)
        if raw:
            response.raw_output_contents.append(array.tobytes())
        else:
            getattr(tensor.contents, CONTENTS[output.datatype]).extend(array.ravel().tolist())


def _array(answers: Answers, output: Tensor) -> npt.NDArray[Any]:
    if output is LOGITS:
        return answers.logits
    return answers.logits.argmax(axis=1) if output is DIGIT else answers.probabilities


def _write_classes(
    response: pb.ModelInferResponse, name: str, values: Floats, classes: int, *, raw: bool
) -> None:
    """Adds strings such as "0.998000:7", the largest value of each image first.

    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
    """
    order = np.argsort(-values, axis=1, kind="stable")[:, :classes]
    strings = [
        f"{row[index]:f}:{index}".encode()
        for row, best in zip(values, order, strict=True)
        for index in best
    ]
    tensor = response.outputs.add(name=name, datatype="BYTES", shape=order.shape)
    if raw:
        lengths = (struct.pack("<I", len(string)) for string in strings)
        framed = [part for pair in zip(lengths, strings, strict=True) for part in pair]
        response.raw_output_contents.append(b"".join(framed))
    else:
        tensor.contents.bytes_contents.extend(strings)
