"""Requests of the Open Inference Protocol that are wrong: each is told why, and harms nobody."""

import re
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest, ResourceInfo
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from infer_requests import BYTES, IMAGES, Request, request

from proto.inference import grpc_service_pb2 as pb
from proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub


@pytest.fixture(scope="module")
def channel(server: Any) -> Iterator[grpc.Channel]:
    """A channel to the bundled model's server."""
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    """The generated stub."""
    return GRPCInferenceServiceStub(channel)


def changed(**fields: Any) -> Request:
    """A good request of two images with fields of its input changed."""
    sent = request(IMAGES[:2])
    for name, value in fields.items():
        if name == "shape":
            sent.inputs[0].ClearField("shape")
            sent.inputs[0].shape.extend(value)
        else:
            setattr(sent.inputs[0], name, value)
    return sent


def with_contents(sent: Request, **contents: Any) -> Request:
    """A request with typed contents beside what it has."""
    sent.inputs[0].contents.MergeFrom(pb.InferTensorContents(**contents))
    return sent


def with_parameter(name: str, where: str = "request", **value: Any) -> Request:
    """A good request with a parameter of its own, of its input or of the output of a name."""
    sent = request()
    owner: Any = sent
    if where == "input":
        owner = sent.inputs[0]
    elif where != "request":
        owner = sent.outputs.add(name=where)
    owner.parameters[name].MergeFrom(pb.InferParameter(**value))
    return sent


def with_inputs(*names: str) -> Request:
    """A request with good inputs under these names."""
    sent = request()
    sent.inputs.extend([sent.inputs[0]] * len(names))
    del sent.inputs[0]
    for tensor, name in zip(sent.inputs, names, strict=True):
        tensor.name = name
    sent.raw_input_contents.extend([sent.raw_input_contents[0]] * len(names))
    del sent.raw_input_contents[0]
    return sent


def with_outputs(*names: str) -> Request:
    """A good request that asks for these outputs."""
    sent = request()
    sent.outputs.extend(Request.InferRequestedOutputTensor(name=name) for name in names)
    return sent


def with_raw(*contents: bytes) -> Request:
    """A request for one image with other raw contents."""
    sent = request()
    sent.ClearField("raw_input_contents")
    sent.raw_input_contents.extend(contents)
    return sent


def to_model(name: str = "digitnet", version: str = "") -> Request:
    """A good request to another model or version."""
    sent = request()
    sent.model_name, sent.model_version = name, version
    return sent


def spoilt(value: float, *, raw: bool = True) -> Request:
    """A request whose sixth pixel is wrong."""
    image = IMAGES[:1].copy()
    image[0, 5] = value
    return request(image, raw=raw)


GOOD = IMAGES[0].tobytes()
SHAPE, RAW, FP32 = "inputs[0].shape", "raw_input_contents[0]", "inputs[0].contents.fp32_contents"
UINTS = "inputs[0].contents.uint_contents"
NONE_OF = r"none of \[n, 1, 28, 28\]"
HUGE = 2**63 - 1

BAD = {
    "no input": (with_inputs(), "inputs", "0 times: send it once"),
    "misnamed input": (with_inputs("image"), "inputs[0].name", "'image'.*named pixels"),
    "unnamed input": (with_inputs(""), "inputs[0].name", "named pixels"),
    "extra input": (with_inputs("pixels", "mask"), "inputs[1].name", "'mask'.*named pixels"),
    "duplicate input": (with_inputs("pixels", "pixels"), "inputs", "2 times: send it once"),
    "unknown output": (with_outputs("digit", "label"), "outputs[1].name", "'label'.*logits"),
    "unnamed output": (with_outputs(""), "outputs[0].name", "no output is named ''"),
    "duplicate output": (with_outputs("digit", "digit"), "outputs[1].name", "ask once"),
    "another datatype": (changed(datatype="FP64"), "inputs[0].datatype", "'FP64'.*UINT8"),
    "lower-case datatype": (changed(datatype="fp32"), "inputs[0].datatype", "send FP32"),
    "no datatype": (changed(datatype=""), "inputs[0].datatype", "send FP32"),
    "no shape": (changed(shape=()), SHAPE, NONE_OF),
    "too few dimensions": (changed(shape=(1568,)), SHAPE, NONE_OF),
    "one image without a batch": (changed(shape=(28, 28)), SHAPE, NONE_OF),
    "too many dimensions": (changed(shape=(2, 1, 1, 28, 28)), SHAPE, NONE_OF),
    "thousands of dimensions": (changed(shape=[1] * 100_000), SHAPE, NONE_OF),
    "channels last": (changed(shape=(2, 28, 28, 1)), SHAPE, NONE_OF),
    "a negative dimension": (changed(shape=(2, -1, 28, 28)), SHAPE, NONE_OF),
    "a zero dimension": (changed(shape=(2, 1, 0, 28)), SHAPE, NONE_OF),
    "negative dimensions of the right product": (changed(shape=(2, -28, -28)), SHAPE, NONE_OF),
    "a negative batch": (changed(shape=(-1, 1, 28, 28)), SHAPE, "-1 images.*from 1 to 256"),
    "batch 0": (changed(shape=(0, 784)), SHAPE, "0 images.*from 1 to 256"),
    "above the maximum": (request(np.zeros((257, 784), np.float32)), SHAPE, "from 1 to 256"),
    "a batch that overflows": (changed(shape=(HUGE, 784)), SHAPE, "from 1 to 256"),
    "a product that wraps to 0": (changed(shape=(2**32, 2**32, 28)), SHAPE, NONE_OF),
    "a shape of more than was sent": (changed(shape=(3, 784)), RAW, "6272 bytes.* takes 9408"),
    "a shape of less than was sent": (changed(shape=(1, 784)), RAW, "6272 bytes.* takes 3136"),
    "one byte short": (with_raw(GOOD[:-1]), RAW, "3135 bytes.* takes 3136"),
    "one byte over": (with_raw(GOOD + b"\0"), RAW, "3137 bytes.* takes 3136"),
    "no byte": (with_raw(b""), RAW, "0 bytes"),
    "floats as UINT8": (changed(datatype="UINT8"), RAW, "6272 bytes.* takes 1568"),
    "no contents": (with_raw(), FP32, "0 values"),
    "too many contents": (with_raw(GOOD, GOOD), "raw_input_contents", "2 were sent for 1"),
    "raw and typed": (
        with_contents(request(), fp32_contents=IMAGES[0]),
        "inputs[0].contents",
        "one of the two",
    ),
    "raw and empty contents": (with_contents(request()), "inputs[0].contents", "one of the two"),
    "typed in another field": (
        with_contents(with_raw(), fp64_contents=IMAGES[0]),
        "inputs[0].contents.fp64_contents",
        "FP32 goes into fp32_contents",
    ),
    "typed in two fields": (
        with_contents(request(raw=False), int_contents=[1]),
        "inputs[0].contents.int_contents",
        "nothing else",
    ),
    "too few typed values": (
        with_contents(with_raw(), fp32_contents=IMAGES[0, 1:]),
        FP32,
        "783 values.* takes 784",
    ),
    "a typed UINT8 above 255": (
        request(np.full((1, 784), 255, np.uint8), raw=False),
        UINTS,
        "256 is no UINT8",
    ),
    "a name that is empty": (to_model(""), "model_name", "no model's name"),
    "a name of white space": (to_model(" \t"), "model_name", "no model's name"),
    "a name with white space": (to_model("digitnet "), "model_name", "no model's name"),
    "a path": (to_model("../digitnet"), "model_name", "no model's name"),
    "an absolute path": (to_model("/etc/passwd"), "model_name", "no model's name"),
    "a name of a megabyte": (to_model("x" * 1_000_000), "model_name", "no model's name"),
    "a version in words": (to_model(version="newest"), "model_version", "'newest' is no version"),
    "a version with a path": (to_model(version="../1"), "model_version", "is no version"),
    "a negative version": (to_model(version="-1"), "model_version", "is no version"),
    "version 0": (to_model(version="0"), "model_version", "is no version"),
    "a version beyond 64 bits": (to_model(version="9" * 20), "model_version", "is no version"),
    "a version in other digits": (to_model(version="١"), "model_version", "is no version"),
    "NaN": (spoilt(np.nan), RAW, r"pixels\[5\] is nan"),
    "Inf": (spoilt(np.inf), RAW, r"pixels\[5\] is inf"),
    "-Inf typed": (spoilt(-np.inf, raw=False), FP32, r"pixels\[5\] is -inf"),
    "bytes as floats": (request(BYTES[:1].astype(np.float32)), RAW, "divide by 255"),
    "a reserved parameter": (
        with_parameter("sequence_id", int64_param=7),
        "parameters['sequence_id']",
        "leave it out",
    ),
    "a reserved prefix": (
        with_parameter("triton_invented", bool_param=True),
        "parameters['triton_invented']",
        "leave it out",
    ),
    "shared memory": (
        with_parameter("shared_memory_region", "input", string_param="region"),
        "inputs[0].parameters['shared_memory_region']",
        "leave it out",
    ),
    "a parameter without a value": (
        with_parameter("tenant"),
        "parameters['tenant']",
        "has no value",
    ),
    "a timeout in words": (
        with_parameter("timeout", string_param="1 s"),
        "parameters['timeout']",
        "string_param was sent: send int64_param",
    ),
    "a negative timeout": (
        with_parameter("timeout", int64_param=-1),
        "parameters['timeout']",
        "too small",
    ),
    "a classification of true": (
        with_parameter("classification", "logits", bool_param=True),
        "outputs[0].parameters['classification']",
        "send int64_param",
    ),
    "a classification of none": (
        with_parameter("classification", "logits", int64_param=0),
        "outputs[0].parameters['classification']",
        "send 1 or more",
    ),
    "a classification of the digit": (
        with_parameter("classification", "digit", int64_param=1),
        "outputs[0].parameters",
        "a class already",
    ),
}
BAD["a typed UINT8 above 255"][0].inputs[0].contents.uint_contents[9] = 256


@pytest.mark.parametrize(("sent", "field", "advice"), BAD.values(), ids=BAD)
def test_a_bad_request_is_refused_with_advice(
    stub: GRPCInferenceServiceStub, sent: Request, field: str, advice: str
) -> None:
    """INVALID_ARGUMENT names the field and says what to do, the same in a stream; calls go on."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(sent)
    violation = bad_request(caught.value)
    assert violation.field == field
    assert re.search(advice, violation.description)
    in_stream, after = stub.ModelStreamInfer(iter([sent, request()]))
    assert in_stream.error_message == caught.value.details()
    assert not after.error_message
    assert stub.ModelInfer(request()).model_name == "digitnet"


def bad_request(error: Any) -> BadRequest.FieldViolation:
    """The one violation that an INVALID_ARGUMENT tells of."""
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    return detail(error, BadRequest()).field_violations[0]


def detail(error: Any, kind: Any) -> Any:
    """An error's one detail, which is of a kind."""
    status = rpc_status.from_call(error)
    assert status is not None
    (packed,) = status.details
    assert packed.Unpack(kind)
    return kind


@pytest.mark.parametrize(
    ("name", "version", "resource"),
    [("nobody", "", "nobody"), ("digitnet", "7", "digitnet/7")],
)
@pytest.mark.parametrize(
    "method", ["ModelInfer", "ModelMetadata", "ModelConfig", "ModelStatistics"]
)
def test_an_unknown_model_is_not_found(
    stub: GRPCInferenceServiceStub, method: str, name: str, version: str, resource: str
) -> None:
    """NOT_FOUND says what there is instead, and its details what was asked for."""
    sent: Any = {
        "ModelInfer": to_model(name, version),
        "ModelMetadata": pb.ModelMetadataRequest(name=name, version=version),
        "ModelConfig": pb.ModelConfigRequest(name=name, version=version),
        "ModelStatistics": pb.ModelStatisticsRequest(name=name, version=version),
    }[method]
    with pytest.raises(grpc.RpcError, match=r"there are: digitnet|it has: 1") as caught:
        getattr(stub, method)(sent)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    found = detail(caught.value, ResourceInfo())
    assert (found.resource_type, found.resource_name) == ("model", resource)


@pytest.mark.parametrize(
    ("method", "sent", "field"),
    [
        ("ModelReady", pb.ModelReadyRequest(), "name"),
        ("ModelReady", pb.ModelReadyRequest(name="digitnet", version="one"), "version"),
        ("ModelMetadata", pb.ModelMetadataRequest(name=" "), "name"),
        ("ModelConfig", pb.ModelConfigRequest(name="../digitnet"), "name"),
        ("ModelStatistics", pb.ModelStatisticsRequest(version="1"), "name"),
        ("RepositoryIndex", pb.RepositoryIndexRequest(repository_name="x"), "repository_name"),
    ],
)
def test_bad_names_are_refused_everywhere(
    stub: GRPCInferenceServiceStub, method: str, sent: Any, field: str
) -> None:
    """The calls about models judge names and versions as ModelInfer does."""
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(sent)
    assert bad_request(caught.value).field == field


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_request_is_the_servers_fault(
    stub: GRPCInferenceServiceStub, data: st.DataObject
) -> None:
    """Whatever is put together, it is answered or the caller is told what is wrong with it."""
    dimension = st.sampled_from([-(2**63), -28, -1, 0, 1, 2, 28, 784, 2**32, HUGE])
    name = st.sampled_from(["pixels", "logits", "digit", "digitnet", "", "x"])
    contents = st.builds(
        pb.InferTensorContents,
        fp32_contents=st.sampled_from([[], [0.5] * 784, [np.nan]]),
        uint_contents=st.sampled_from([[], [255] * 784, [2**32 - 1] * 784]),
        bytes_contents=st.sampled_from([[], [b"1"]]),
    )
    parameters = st.dictionaries(
        st.sampled_from(["timeout", "priority", "classification", "triton_x", "own"]),
        st.builds(pb.InferParameter, int64_param=st.sampled_from([-(2**63), 0, 1, HUGE])),
        max_size=1,
    )
    tensor = st.builds(
        Request.InferInputTensor,
        name=name,
        datatype=st.sampled_from(["FP32", "UINT8", "BYTES", ""]),
        shape=st.one_of(st.lists(dimension, max_size=5), st.just([1, 784])),
        contents=st.one_of(st.none(), contents),
        parameters=parameters,
    )
    output = st.builds(Request.InferRequestedOutputTensor, name=name, parameters=parameters)
    sent = data.draw(
        st.builds(
            Request,
            model_name=st.sampled_from(["digitnet", "x"]),
            model_version=st.sampled_from(["", "1", "x"]),
            parameters=parameters,
            inputs=st.lists(tensor, max_size=2),
            outputs=st.lists(output, max_size=3),
            raw_input_contents=st.lists(
                st.one_of(st.sampled_from([GOOD, GOOD[:784]]), st.binary(max_size=9)), max_size=2
            ),
        )
    )
    assert stub.ModelInfer.future(sent).code() in {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.DEADLINE_EXCEEDED,  # a timeout of a microsecond
    }


def test_random_bytes_are_the_callers_error(channel: grpc.Channel) -> None:
    """Bytes that are no message are INVALID_ARGUMENT."""
    call: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    assert call.future(b"\xff\xff").code() is grpc.StatusCode.INVALID_ARGUMENT
