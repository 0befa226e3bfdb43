"""The committed stubs serve every caller they are meant for."""

import subprocess
import sys
from pathlib import Path

import pytest

from proto.mnist.v1 import prediction_service_pb2 as pb

IMPORT = """
import google.protobuf
from proto.mnist.v1 import prediction_service_pb2 as pb, prediction_service_pb2_grpc
request = pb.PredictRequest(pixels=[0.5] * 784, model="digitnet", model_version=1)
assert pb.PredictRequest.FromString(request.SerializeToString()) == request
prediction_service_pb2_grpc.PredictionServiceStub
from proto.inference import grpc_service_pb2 as inference_pb, grpc_service_pb2_grpc
request = inference_pb.ModelInferRequest(model_name="digitnet", raw_input_contents=[b"1"])
assert inference_pb.ModelInferRequest.FromString(request.SerializeToString()) == request
grpc_service_pb2_grpc.GRPCInferenceServiceStub
print(google.protobuf.__version__.partition(".")[0])
"""


@pytest.mark.parametrize(("version", "python"), [("6", ".venv/proto/bin/python"), ("7", None)])
def test_stubs_import_under_protobuf(project: Path, version: str, python: str | None) -> None:
    """Services on protobuf 6 and on 7 can both import the stubs."""
    interpreter = project / python if python else Path(sys.executable)
    if not interpreter.exists():
        pytest.skip(f"no environment with protobuf {version}: run `make proto`, which makes one")
    process = subprocess.run(
        [interpreter, "-W", "error", "-c", IMPORT], cwd=project, capture_output=True, text=True
    )
    assert process.stderr == ""
    assert process.stdout == f"{version}\n"


def test_field_numbers_are_the_contract() -> None:
    """The wire's names and numbers, which others build on, have not moved."""
    contract = {
        "PredictRequest": {"pixels": 1, "model": 2, "model_version": 3},
        "PredictResponse": {"prediction": 1, "model": 2, "model_version": 3},
        "PredictBatchRequest": {"pixels": 1, "model": 2, "model_version": 3},
        "PredictBatchResponse": {"predictions": 1, "model": 2, "model_version": 3},
        "PredictStreamRequest": {"pixels": 1, "model": 2, "model_version": 3},
        "PredictStreamResponse": {"prediction": 1, "error": 2, "model": 3, "model_version": 4},
        "Prediction": {"digit": 1, "confidence": 2, "probabilities": 3, "logits": 4},
        "ListModelsRequest": {},
        "ListModelsResponse": {"models": 1},
    }
    messages = pb.DESCRIPTOR.message_types_by_name
    assert contract == {
        name: {field.name: field.number for field in messages[name].fields} for name in contract
    }
