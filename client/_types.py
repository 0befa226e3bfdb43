"""What the server answers, as plain values."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from grpc_health.v1 import health_pb2

from proto.mnist.v1 import prediction_service_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What a model sees in one image.

    Attributes:
        digit: The most probable digit, 0 to 9.
        confidence: The probability of `digit`, 0 to 1.
        probabilities: float32 [10], the probability of each digit; they add up to 1.
        logits: float32 [10], the network's output before softmax.
        model: Name of the model that answered.
        model_version: The version that answered.
    """

    digit: int
    confidence: float
    probabilities: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    model: str
    model_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One version of a model that the server knows, and where it comes from.

    Attributes:
        name: The model's name.
        version: Its version.
        ready: Whether requests that ask for this version are answered.
        default: Whether it answers requests that name no model and no version.
        architecture: Name of the architecture, such as "digitnet".
        parameters: Number of trainable parameters.
        dataset: The data set it was trained on, such as "mnist".
        dataset_sha256: SHA-256 of that data set's files.
        recipe: The training recipe, as JSON.
        seed: The seed of the training run.
        test_accuracy: The fraction of the test images that it gets right, 0 to 1.
        parity_max_abs_logit_diff: The largest difference between a logit of PyTorch
            and of onnxruntime over the test images, measured at export.
        golden_tolerance: The largest difference from PyTorch's logits that the
            server accepts when it loads the model.
        torch_version: PyTorch's version at export.
        onnx_version: ONNX's version at export.
        git_commit: The commit of the training code.
        created: When it was exported, in UTC; None where the server does not say.
    """

    name: str
    version: int
    ready: bool
    default: bool
    architecture: str
    parameters: int
    dataset: str
    dataset_sha256: str
    recipe: str
    seed: int
    test_accuracy: float
    parity_max_abs_logit_diff: float
    golden_tolerance: float
    torch_version: str
    onnx_version: str
    git_commit: str
    created: datetime | None


class Health(StrEnum):
    """Whether the server, one of its services or one of its models answers requests."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"


def health(response: health_pb2.HealthCheckResponse) -> Health:
    """Reads a health check off the wire."""
    return Health(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


def prediction(message: pb.Prediction, model: str, version: int) -> Prediction:
    """Reads a prediction off the wire."""
    return Prediction(
        digit=message.digit,
        confidence=message.confidence,
        probabilities=np.array(message.probabilities, np.float32),
        logits=np.array(message.logits, np.float32),
        model=model,
        model_version=version,
    )


def predictions(response: pb.PredictBatchResponse) -> list[Prediction]:
    """Reads the predictions of a batch off the wire."""
    return [
        prediction(message, response.model, response.model_version)
        for message in response.predictions
    ]


def models(response: pb.ListModelsResponse) -> list[Model]:
    """Reads the server's models off the wire."""
    plain = [field.name for field in fields(Model) if field.name != "created"]
    return [
        Model(
            **{name: getattr(message, name) for name in plain},
            created=message.created.ToDatetime(UTC) if message.HasField("created") else None,
        )
        for message in response.models
    ]
