"""Calls of Triton's own client, run by tests/test_server_triton.py with an interpreter that has it.

    .venv/triton/bin/python tests/triton_calls.py NAME ADDRESS

Each call asserts what it should see; the environment's protobuf is older than ours, so
nothing of this project is imported.
"""

import sys
from functools import partial
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

IMAGES = np.random.default_rng(0).random((3, 1, 28, 28), np.float32)


def images(array: Any = IMAGES, datatype: str = "FP32", name: str = "pixels") -> Any:
    """The client's input tensor."""
    tensor = triton.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def assert_answers(result: Any, count: int = len(IMAGES)) -> None:
    """All outputs, of the right shapes, that agree with each other."""
    logits, probabilities = result.as_numpy("logits"), result.as_numpy("probabilities")
    assert logits.shape == probabilities.shape == (count, 10)
    assert np.array_equal(result.as_numpy("digit"), logits.argmax(axis=1))
    exponents = np.exp(logits.astype(np.float64))
    softmax = exponents / exponents.sum(axis=1, keepdims=True)
    assert np.allclose(probabilities, softmax, rtol=0, atol=1e-6)


def refused(call: Any, code: str, words: str) -> None:
    """Asserts that a call fails with a status code and a sentence."""
    caught = None
    try:
        call()
    except InferenceServerException as error:
        caught = error
    assert caught is not None, f"this call was to fail: {words}"
    assert caught.status() == f"StatusCode.{code}", caught
    assert words in caught.message(), caught


def live(client: Any) -> None:
    """Live, ready, and which models are."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digitnet")
    assert client.is_model_ready("digitnet", "1")
    assert not client.is_model_ready("digitnet", "9")
    assert not client.is_model_ready("nobody")


def metadata(client: Any) -> None:
    """Of the server and of a model."""
    server = client.get_server_metadata(as_json=True)
    assert server["name"] == "mnist-inference"
    assert "statistics" in server["extensions"]
    model = client.get_model_metadata("digitnet", as_json=True)
    assert model["versions"] == ["1"]
    assert model["platform"] == "onnxruntime_onnx"
    assert model["inputs"] == [
        {"name": "pixels", "datatype": "FP32", "shape": ["-1", "1", "28", "28"]}
    ]
    assert [output["name"] for output in model["outputs"]] == ["logits", "probabilities", "digit"]


def config(client: Any) -> None:
    """A model's configuration, as the client's own messages read it."""
    found = client.get_model_config("digitnet").config
    assert (found.name, found.backend, found.max_batch_size) == ("digitnet", "onnxruntime", 256)
    assert found.input[0].data_type == model_config_pb2.TYPE_FP32
    assert list(found.input[0].dims) == [1, 28, 28]
    assert found.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert found.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU


def infer_raw(client: Any) -> None:
    """The client's own way: floats and bytes of every shape."""
    result = client.infer("digitnet", [images()], request_id="seven", model_version="1")
    assert_answers(result)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("seven", "digitnet", "1")
    for shape in ((3, 28, 28), (3, 784)):
        again = client.infer("digitnet", [images(IMAGES.reshape(shape))])
        assert np.array_equal(again.as_numpy("logits"), result.as_numpy("logits"))
    ink = (IMAGES * 255).astype(np.uint8)
    assert_answers(client.infer("digitnet", [images(ink, "UINT8")]))


def infer_typed(client: Any) -> None:
    """Typed tensors, which the client reads but does not write: its messages do."""
    raw = client.infer("digitnet", [images()])
    request = service_pb2.ModelInferRequest(model_name="digitnet")
    tensor = request.inputs.add(name="pixels", datatype="FP32", shape=IMAGES.shape)
    tensor.contents.fp32_contents.extend(IMAGES.ravel())
    with grpc.insecure_channel(sys.argv[2]) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert not response.raw_output_contents
    logits, _, digit = response.outputs
    floats = np.array(logits.contents.fp32_contents, np.float32).reshape(logits.shape)
    assert np.array_equal(floats, raw.as_numpy("logits"))
    assert list(digit.contents.int64_contents) == raw.as_numpy("digit").tolist()


def infer_chosen(client: Any) -> None:
    """Some of the outputs, and the best classes of one."""
    wanted = [
        triton.InferRequestedOutput("digit"),
        triton.InferRequestedOutput("probabilities", class_count=2),
    ]
    result = client.infer("digitnet", [images()], outputs=wanted)
    assert result.as_numpy("logits") is None
    classes = result.as_numpy("probabilities").reshape(3, 2)
    best = [int(first.decode().split(":")[1]) for first, _ in classes]
    assert best == result.as_numpy("digit").tolist()


def async_infer(client: Any) -> None:
    """Calls whose answers come to a callback."""
    answers: SimpleQueue[Any] = SimpleQueue()

    def callback(result: Any, error: Any) -> None:
        answers.put((result, error))

    for _ in range(20):
        client.async_infer("digitnet", [images()], callback)
    for _ in range(20):
        result, error = answers.get(timeout=30)
        assert error is None
        assert_answers(result)


def stream_infer(client: Any) -> None:
    """Answers in order; an error comes in its place and the stream goes on."""
    answers: SimpleQueue[Any] = SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for index in range(3):
        client.async_stream_infer(
            "digitnet" if index != 1 else "nobody",
            [images()],
            request_id=str(index),
            enable_empty_final_response=True,
        )
    for index in range(3):
        result, error = answers.get(timeout=30)
        if index == 1:
            assert "nobody" in error.message()
            continue
        assert error is None
        assert_answers(result)
        response = result.get_response()
        assert response.id == str(index)
        assert response.parameters["triton_final_response"].bool_param
    client.stop_stream()


def statistics(client: Any) -> None:
    """What two calls add."""

    def sums() -> Any:
        (found,) = client.get_inference_statistics("digitnet").model_stats
        return found

    before = sums()
    client.infer("digitnet", [images()])
    client.infer("digitnet", [images(IMAGES[:1])])
    after = sums()
    assert after.inference_count - before.inference_count == 4
    assert after.execution_count - before.execution_count == 2
    assert after.inference_stats.success.count - before.inference_stats.success.count == 2
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert {1, 3} <= {batch.batch_size for batch in after.batch_stats}


def index(client: Any) -> None:
    """The repository's versions and their states."""
    (model,) = client.get_model_repository_index(as_json=True)["models"]
    assert (model["name"], model["version"], model["state"]) == ("digitnet", "1", "READY")


def errors(client: Any) -> None:
    """Each as the client's exception, with gRPC's code and our sentence."""
    infer = partial(client.infer, "digitnet")
    refused(partial(infer, [images(name="image")]), "INVALID_ARGUMENT", "named pixels")
    refused(partial(infer, [images(IMAGES[:, 0, :27])]), "INVALID_ARGUMENT", "none of")
    refused(partial(infer, [images(IMAGES * 255)]), "INVALID_ARGUMENT", "divide by 255")
    wrong_type = images(IMAGES.astype(np.float64), "FP64")
    refused(partial(infer, [wrong_type]), "INVALID_ARGUMENT", "'FP64' is not taken")
    unknown = [triton.InferRequestedOutput("label")]
    refused(partial(infer, [images()], outputs=unknown), "INVALID_ARGUMENT", "'label'")
    refused(partial(infer, [images()], "9"), "NOT_FOUND", "no version 9")
    refused(partial(infer, [images()], "one"), "INVALID_ARGUMENT", "is no version")
    refused(partial(infer, [images()], sequence_id=7), "INVALID_ARGUMENT", "sequence_")
    refused(partial(client.get_model_metadata, "nobody"), "NOT_FOUND", "'nobody'")
    refused(partial(client.load_model, "digitnet"), "PERMISSION_DENIED", "--allow-model-control")
    refused(partial(client.unload_model, "digitnet"), "PERMISSION_DENIED", "--allow-model-control")
    refused(client.get_system_shared_memory_status, "UNIMPLEMENTED", "")
    assert_answers(infer([images()]))


def control(client: Any) -> None:
    """Unload and load, on a server that allows it."""
    client.unload_model("digitnet")
    assert not client.is_model_ready("digitnet")
    assert not client.is_server_ready()
    assert client.get_model_repository_index().models[0].state == "UNAVAILABLE"
    refused(partial(client.infer, "digitnet", [images()]), "UNAVAILABLE", "was unloaded")
    client.load_model("digitnet")
    assert client.is_model_ready("digitnet")
    assert_answers(client.infer("digitnet", [images()]))
    refused(partial(client.load_model, "nobody"), "NOT_FOUND", "'nobody'")
    refused(partial(client.load_model, "digitnet", config="{}"), "INVALID_ARGUMENT", "config")


if __name__ == "__main__":
    with triton.InferenceServerClient(sys.argv[2]) as _client:
        globals()[sys.argv[1]](_client)
