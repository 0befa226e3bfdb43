"""An int8 variant is as accurate as float, proved like it, and served like any other model."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from server.errors import ModelRefused
from server.model import Model
from training.checkpoint import Checkpoint
from training.cli import main
from training.data import load
from training.golden import golden_logits, golden_pixels
from training.models import ARCHITECTURES
from training.onnx_graph import to_onnx
from training.parity import logits, open_session
from training.quantization import quantize


def command(root: Path, name: str, *flags: str) -> Result:
    """Runs a command of `training` with all its folders in `root`."""
    kinds = {"train": ("data", "runs"), "export": ("data", "runs", "models")}
    folders = (f"--{kind}={root}/{kind}" for kind in kinds.get(name, ("models", "results")))
    return CliRunner().invoke(main, [name, *folders, *flags])


def succeed(result: Result) -> None:
    """Nothing went wrong."""
    assert result.exit_code == 0, result.output


def claim(root: Path, more: int) -> None:
    """Has the run say that so many more test images were right in float."""
    run = Checkpoint.load(root / "runs/digitnet")
    assert run.test is not None
    run.test = replace(run.test, accuracy=run.test.accuracy + more / 360)
    run.save(root / "runs/digitnet")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/, runs/ and models/: digitnet on the embedded digits, in both forms."""
    root = tmp_path_factory.mktemp("quantized")
    # Long enough to be sure of its answers: of 360 images, one lost is one too many.
    recipe = ("--epochs", "8", "--ema-decay", "0", "--seed", "0", "--device", "cpu")
    succeed(command(root, "train", "--dataset", "digits", *recipe))
    claim(root, -1)  # so that float's accuracy can be told from int8's
    succeed(command(root, "export"))
    succeed(command(root, "export", "--quantize"))
    return root


@pytest.fixture
def variant(root: Path, tmp_path: Path) -> Path:
    """A copy of the int8 version's folder, to work on."""
    return Path(shutil.copytree(root / "models/digitnet-int8/1", tmp_path / "1"))


def facts(folder: Path) -> dict[str, str]:
    """Returns the metadata_props of a version."""
    props = onnx.load(folder / "model.onnx").metadata_props
    return {entry.key: entry.value for entry in props}


def listing(folder: Path) -> list[str]:
    """Returns all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))


def weights(model: onnx.ModelProto) -> dict[str, NDArray[np.int8]]:
    """Returns an int8 model's int8 weights by name."""
    tensors = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
    }
    return {name: value for name, value in tensors.items() if value.dtype == "int8" and value.any()}


def test_a_variant_beside_the_float_model(root: Path) -> None:
    """It is a model of its own, in two files like any other, and nothing else is left behind."""
    assert listing(root / "models") == [
        "digitnet-int8/1/golden.npz",
        "digitnet-int8/1/model.onnx",
        "digitnet/1/golden.npz",
        "digitnet/1/model.onnx",
    ]
    float_file, int8_file = (
        root / f"models/{n}/1/model.onnx" for n in ("digitnet", "digitnet-int8")
    )
    assert int8_file.stat().st_size < 0.5 * float_file.stat().st_size


def test_graph(root: Path, variant: Path, project: Path) -> None:
    """It keeps the contract: full check, opset, inputs and outputs, no path of this machine."""
    model = onnx.load(variant / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    float_graph = onnx.load(root / "models/digitnet/1/model.onnx").graph
    assert list(model.graph.input) == list(float_graph.input)
    assert list(model.graph.output) == list(float_graph.output)
    content = (variant / "model.onnx").read_bytes()
    for path in (project, root, Path(torch.__file__).parent, Path.home()):
        assert str(path).encode() not in content


def test_no_processor_saturates(variant: Path) -> None:
    """Two products of an activation and a weight fit 16 bits, in which some processors add them."""
    found = weights(onnx.load(variant / "model.onnx"))
    assert len(found) == 4  # all but the first layer's
    assert all(2 * 255 * np.abs(value.astype(int)).max() < 2**15 for value in found.values())


@pytest.mark.parametrize("arch", ["digitnet", "light"])
def test_onnxruntime_runs_it_in_int8(arch: str, root: Path, tmp_path: Path) -> None:
    """From the first pooling to the logits nothing goes back to float, and ReLU costs nothing."""
    model = ARCHITECTURES[arch]().eval()
    proto = quantize(to_onnx(model), load("digits", root / "data", torch.device("cpu")).train)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # it warns that the file is for this machine alone
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert operators.count("Conv") == 1
    assert operators.count("QLinearConv") == 3
    assert not {"Relu", "DequantizeLinear"} & set(operators)
    assert operators.count("QuantizeLinear") == 1
    assert operators.index("MaxPool") < operators.index("QuantizeLinear")
    expected = golden_logits(model)
    difference = np.abs(logits(session, golden_pixels()) - expected).max()
    assert difference < 0.1 * np.abs(expected).max()


def test_metadata(root: Path, variant: Path) -> None:
    """It says how accurate int8 and float are, and how far apart, and all of it is true."""
    said, of_float = facts(variant), facts(root / "models/digitnet/1")
    test = load("digits", root / "data", torch.device("cpu")).test
    pixels = test.images.float().div(255).numpy()
    answered = logits(open_session((variant / "model.onnx").read_bytes()), pixels)
    right = int((answered.argmax(1) == test.labels.numpy()).sum())
    assert float(said["test_accuracy"]) == right / len(test)
    assert said["float_test_accuracy"] == of_float["test_accuracy"]
    drop = float(said["float_test_accuracy"]) - float(said["test_accuracy"])
    assert float(said["accuracy_drop"]) == pytest.approx(drop, abs=1e-4)
    with torch.inference_mode():
        expected = Checkpoint.load(root / "runs/digitnet").best_model()(torch.from_numpy(pixels))
    largest = np.abs(answered - expected.numpy()).max()
    assert float(said["parity_max_abs_logit_diff"]) == pytest.approx(largest, abs=1e-3)
    assert json.loads(said["quantization"])["activations"] == "uint8"
    assert {key: said[key] for key in ("architecture", "recipe", "seed", "dataset_sha256")} == {
        key: of_float[key] for key in ("architecture", "recipe", "seed", "dataset_sha256")
    }


def test_golden_answers_are_pytorchs(root: Path, variant: Path) -> None:
    """golden.npz is as the float model's, and the tolerance is what int8 needs and half as much."""
    golden = np.load(variant / "golden.npz")
    of_float = np.load(root / "models/digitnet/1/golden.npz")
    np.testing.assert_array_equal(golden["pixels"], of_float["pixels"])
    np.testing.assert_array_equal(golden["logits"], of_float["logits"])
    model = Model.load(variant)
    difference = np.abs(model.run(golden["pixels"]).logits - golden["logits"]).max()
    assert model.metadata.golden_tolerance == pytest.approx(1.5 * difference, rel=0.1)


@pytest.mark.parametrize("layer", range(4))
def test_weights_that_changed_are_refused(variant: Path, layer: int) -> None:
    """The golden answers tell weights that are a tenth off from those that were quantised."""
    model = onnx.load(variant / "model.onnx")
    name, value = list(weights(model).items())[layer]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array((0.9 * value).round().astype("int8"), name))
    onnx.save(model, variant / "model.onnx")
    with pytest.raises(ModelRefused, match="differ from PyTorch's golden ones"):
        Model.load(variant)


def test_served(root: Path, project: Path, start_server: Callable[..., Any]) -> None:
    """A server takes it as it is, and over gRPC it is right on as many images as it says."""
    server = start_server("--models", f"{root}/models", "--default-model", "digitnet-int8")
    evaluate = ["evaluate", "--server", server.address, "--data", f"{root}/data", "--json"]
    process = subprocess.run(
        [sys.executable, "-m", "client", *evaluate, "--dataset", "digits"],
        cwd=project,
        capture_output=True,
        text=True,
    )
    answer = json.loads(process.stdout)
    assert answer["model"] == "digitnet-int8"
    assert answer["images"] == 360
    assert answer["accuracy"] == answer["expected_accuracy"]
    assert answer["accuracy"] == float(facts(root / "models/digitnet-int8/1")["test_accuracy"])


def test_lost_accuracy_is_refused(root: Path, tmp_path: Path) -> None:
    """Where int8 loses more than 0.05 points, nothing is published, and one sentence says why."""
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    claim(tmp_path, 8)
    before = listing(tmp_path / "models")
    result = command(tmp_path, "export", "--quantize")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: In int8, ")
    assert result.stderr.count("\n") == 1
    assert listing(tmp_path / "models") == before


def test_comparison_is_kept(root: Path) -> None:
    """Size, speed and accuracy of both forms are measured in one go and kept as JSON."""
    succeed(command(root, "quantization"))
    found = json.loads((root / "results/quantization-digitnet.json").read_text())
    assert found["dataset"] == "digits"
    for kind, name in (("float", "digitnet"), ("int8", "digitnet-int8")):
        assert found[kind]["bytes"] == (root / f"models/{name}/1/model.onnx").stat().st_size
        assert (
            str(found[kind]["test_accuracy"]) == facts(root / f"models/{name}/1")["test_accuracy"]
        )
        for figure in ("p50_us", "images_per_second"):
            spread = found[kind][figure]
            assert 0 < spread["least"] <= spread["median"] <= spread["most"]


def test_comparison_needs_both_forms_of_one_run(root: Path, tmp_path: Path) -> None:
    """Without a variant, or with another run's, there is nothing to compare; a sentence says so."""
    shutil.copytree(root / "models", tmp_path / "models")
    int8_file = tmp_path / "models/digitnet-int8/1/model.onnx"
    other = onnx.load(int8_file)
    onnx.helper.set_model_props(other, facts(int8_file.parent) | {"seed": "1"})
    onnx.save(other, int8_file)
    assert "are not of the same run" in command(tmp_path, "quantization").stderr
    shutil.rmtree(tmp_path / "models/digitnet-int8")
    result = command(tmp_path, "quantization")
    assert result.exit_code == 1
    assert f"{tmp_path}/models/digitnet-int8 holds no version" in result.stderr
    assert not (tmp_path / "results").exists()
