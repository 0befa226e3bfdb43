"""A model proves itself when it is loaded, or is refused with a sentence that says why."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from server.errors import ModelRefused
from server.model import Model


@pytest.fixture
def directory(bundled_models: Path, tmp_path: Path) -> Path:
    """A copy of the bundled version, to be damaged."""
    return Path(shutil.copytree(bundled_models / "digitnet/1", tmp_path / "1"))


def refused(directory: Path, words: str) -> None:
    """Loading ends in a sentence with these words."""
    with pytest.raises(ModelRefused, match=words):
        Model.load(directory)


def test_the_bundled_model_proves_itself(directory: Path) -> None:
    """The committed files load here, on this machine, within their own tolerance."""
    model = Model.load(directory)
    golden = np.load(directory / "golden.npz")
    assert len(golden["pixels"]) >= 64
    logits = model.run(golden["pixels"]).logits
    assert np.abs(logits - golden["logits"]).max() <= model.metadata.golden_tolerance


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_golden_answer_that_differs_is_refused(directory: Path, batch: int) -> None:
    """One logit beyond the tolerance is enough, wherever it stands."""
    with np.load(directory / "golden.npz") as golden:
        pixels, logits = golden["pixels"], golden["logits"].copy()
    logits[batch - 1, 4] += 2e-4
    np.savez(directory / "golden.npz", pixels=pixels, logits=logits)
    refused(directory, "differ from PyTorch's golden ones by 0.000")


def test_a_golden_nan_is_refused(directory: Path) -> None:
    """NaN compares as neither less nor more; it is refused all the same."""
    with np.load(directory / "golden.npz") as golden:
        pixels, logits = golden["pixels"], golden["logits"].copy()
    logits[0, 0] = np.nan
    np.savez(directory / "golden.npz", pixels=pixels, logits=logits)
    refused(directory, "differ from PyTorch's golden ones by nan")


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_a_missing_file_is_refused(directory: Path, name: str) -> None:
    """The sentence names the file."""
    (directory / name).unlink()
    refused(directory, f"{name} is missing")


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_truncated_file_is_refused(directory: Path, name: str, keep: float) -> None:
    """Half a file, or none of it, is no model."""
    path = directory / name
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    refused(directory, f"{name} (cannot be loaded|is corrupt)")


def test_golden_files_cannot_carry_code(directory: Path) -> None:
    """A pickle in the archive is not unpacked."""
    np.savez(directory / "golden.npz", pixels=np.array([{}], dtype=object), logits=np.zeros(1))
    refused(directory, "golden.npz is corrupt")


def test_golden_files_of_other_shapes_are_refused(directory: Path) -> None:
    """An empty proof is no proof."""
    np.savez(
        directory / "golden.npz",
        pixels=np.zeros((0, 1, 28, 28), np.float32),
        logits=np.zeros((0, 10), np.float32),
    )
    refused(directory, "golden.npz holds other shapes")


def test_weights_that_changed_are_refused(directory: Path) -> None:
    """A file that is sound but whose weights are not the trained ones fails its proof."""
    model = onnx.load(directory / "model.onnx")
    weights = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weights) + np.float32(0.01)
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save(model, directory / "model.onnx")
    refused(directory, "differ from PyTorch's golden ones")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("seed", None, "lacks 'seed'"), ("test_accuracy", "high", "'test_accuracy' cannot be read")],
)
def test_metadata_that_cannot_be_read_is_refused(
    directory: Path, key: str, value: str | None, words: str
) -> None:
    """A model without its provenance is not served."""
    model = onnx.load(directory / "model.onnx")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    properties.pop(key)
    helper.set_model_props(model, properties | ({key: value} if value else {}))
    onnx.save(model, directory / "model.onnx")
    refused(directory, words)


def test_another_interface_is_refused(directory: Path) -> None:
    """A sound ONNX file that is not one of ours is named as such."""
    node = helper.make_node("Identity", ["x"], ["y"])
    puts = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 784]) for name in "xy"]
    graph = helper.make_graph([node], "other", puts[:1], puts[1:])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(
        helper.make_model(graph, opset_imports=opset, ir_version=10), directory / "model.onnx"
    )
    refused(directory, "other inputs and outputs")
