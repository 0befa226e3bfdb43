"""The same answer everywhere: PyTorch, onnxruntime and the wire agree on every architecture."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub
from training.checkpoint import Checkpoint
from training.cli import main
from training.models import ARCHITECTURES

# Summing in another order moves a logit by a few units in the last place.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Exported:
    """A model as it was trained, and as it was exported.

    Attributes:
        model: PyTorch's, in evaluation mode.
        folder: the version's folder, with `model.onnx` and `golden.npz`.
    """

    model: nn.Sequential
    folder: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Trains an architecture briefly on the embedded digits and exports it, by the real commands.

    All are version 1 in one models folder.
    """
    root = tmp_path_factory.mktemp("exported")

    @cache
    def train_and_export(arch: str) -> Exported:
        folders = ["--arch", arch, "--data", f"{root}/data", "--runs", f"{root}/runs"]
        for command in (
            ["train", *folders, "--dataset", "digits", "--epochs", "1"],
            ["export", *folders, "--models", f"{root}/models"],
        ):
            result = CliRunner().invoke(main, command)
            assert result.exit_code == 0, result.output
        model = Checkpoint.load(root / "runs" / arch).best_model()
        return Exported(model, root / "models" / arch / "1")

    return train_and_export


@pytest.mark.parametrize("batch", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_onnxruntime_answers_as_pytorch(
    arch: str, batch: int, exported: Callable[[str], Exported]
) -> None:
    """The exported file gives PyTorch's logits, and their softmax, at any batch size."""
    export = exported(arch)
    pixels = np.random.default_rng(batch).random((batch, 1, 28, 28), dtype=np.float32)
    with torch.inference_mode():
        expected = export.model(torch.from_numpy(pixels))
    session = onnxruntime.InferenceSession(export.folder / "model.onnx")
    logits, probabilities = session.run(["logits", "probabilities"], {"pixels": pixels})
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(probabilities, expected.softmax(1), rtol=0, atol=TOLERANCE)
    assert (logits.argmax(1) == expected.argmax(1).numpy()).all()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_golden_answers_are_pytorchs(arch: str, exported: Callable[[str], Exported]) -> None:
    """The logits in golden.npz are what the trained model answers to the pixels beside them."""
    export = exported(arch)
    with np.load(export.folder / "golden.npz") as golden, torch.inference_mode():
        answers = export.model(torch.from_numpy(golden["pixels"]))
        np.testing.assert_allclose(answers, golden["logits"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_wire_answers_as_pytorch(
    arch: str, exported: Callable[[str], Exported], start_server: Callable[..., Any]
) -> None:
    """Over a real socket, one by one and in a batch, the served model gives PyTorch's logits."""
    export = exported(arch)
    models = str(export.folder.parents[1])
    server = start_server("--models", models, "--default-model", arch)
    pixels = np.random.default_rng(0).random((7, 1, 28, 28), dtype=np.float32)
    with torch.inference_mode():
        expected = export.model(torch.from_numpy(pixels)).numpy()
    with grpc.insecure_channel(server.address) as channel:
        stub = PredictionServiceStub(channel)
        batch = stub.PredictBatch(pb.PredictBatchRequest(pixels=pixels.ravel())).predictions
        single = [stub.Predict(pb.PredictRequest(pixels=image.ravel())) for image in pixels]
    for predictions in (batch, [response.prediction for response in single]):
        logits = [prediction.logits for prediction in predictions]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)
        assert [prediction.digit for prediction in predictions] == expected.argmax(1).tolist()
