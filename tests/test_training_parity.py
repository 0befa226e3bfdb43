"""The proof of parity, and the golden check, fail when they should."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress
from torch import nn

from training import golden
from training.data import Split
from training.errors import TrainingError
from training.models import ARCHITECTURES
from training.onnx_graph import to_onnx
from training.parity import Parity, compare


@pytest.fixture
def model() -> nn.Sequential:
    """An untrained network."""
    return ARCHITECTURES["tiny"]().eval()


@pytest.fixture
def images() -> Split:
    """Twenty images of noise."""
    return Split(
        torch.randint(256, (20, 1, 28, 28), dtype=torch.uint8), torch.zeros(20, dtype=torch.int64)
    )


def prove(model: nn.Module, onnx_file: bytes, images: Split) -> Parity:
    """Compares without showing how far it is."""
    return compare(model, onnx_file, images, Progress(disable=True))


def test_true_copy(model: nn.Sequential, images: Split) -> None:
    """A faithful ONNX file is at most rounding away, and holds."""
    parity = prove(model, to_onnx(model).SerializeToString(), images)
    assert parity.images == 20
    assert parity.max_abs_logit_diff < 1e-5
    parity.require()


def test_moved_logit(model: nn.Sequential, images: Split) -> None:
    """A logit that is 2e-4 off is measured as such and refused, though no digit changed."""
    onnx_file = to_onnx(model).SerializeToString()
    last = model[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.add_(2e-4)
    parity = prove(model, onnx_file, images)
    assert parity.max_abs_logit_diff == pytest.approx(2e-4, rel=0.05)
    with pytest.raises(TrainingError, match=r"differs from PyTorch's by 2\.0e-04 \(limit 1e-04\)"):
        parity.require()


@pytest.mark.parametrize(
    "parity", [Parity(1, 0.0, 1, accuracy=0.0), Parity(1, float("nan"), 0, accuracy=1.0)]
)
def test_refused(parity: Parity) -> None:
    """One other digit, or a difference that is no number, is enough to refuse."""
    with pytest.raises(TrainingError, match="Nothing was exported"):
        parity.require()


@pytest.mark.parametrize("place", [(0, 0), (63, 9)])
def test_golden_check(model: nn.Sequential, tmp_path: Path, place: tuple[int, int]) -> None:
    """The golden check passes on the model's own answers, and fails when one of them is moved."""
    golden_file, onnx_file = tmp_path / "golden.npz", tmp_path / "model.onnx"
    onnx_file.write_bytes(to_onnx(model).SerializeToString())
    golden.write(model, golden_file)
    golden.check(golden_file, onnx_file)
    with np.load(golden_file) as content:
        pixels, logits = content["pixels"], content["logits"]
    logits[place] += 2e-4
    np.savez(golden_file, pixels=pixels, logits=logits)
    with pytest.raises(TrainingError, match="golden inputs"):
        golden.check(golden_file, onnx_file)
