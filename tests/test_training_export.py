"""An export is a proved, self-contained version, or it is nothing at all."""

import json
import re
import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result

from training.checkpoint import Checkpoint
from training.cli import main
from training.config import RECIPES
from training.data import load
from training.golden import golden_pixels
from training.idx import dataset_sha256
from training.models import parameter_count


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and runs/digitnet: a finished run on the embedded digits."""
    root = tmp_path_factory.mktemp("finished")
    command = ["train", "--dataset", "digits", "--epochs", "1", "--seed", "7"]
    result = CliRunner().invoke(
        main, [*command, "--data", f"{root}/data", "--runs", f"{root}/runs"]
    )
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """A copy of `finished` to work in, with an empty models/."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "models").mkdir()
    return tmp_path


def export(root: Path, *flags: str) -> Result:
    """Runs `export` on the folders in `root`."""
    folders = (f"--{name}={root}/{name}" for name in ("data", "runs", "models"))
    return CliRunner().invoke(main, ["export", *folders, *flags])


def refused(result: Result) -> str:
    """Returns what a failed command said: one sentence or two, on one line, and no trace."""
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def listing(folder: Path) -> list[Path]:
    """Returns all that is below a folder."""
    return sorted(folder.rglob("*"))


def test_one_self_contained_version(root: Path) -> None:
    """An export is two files in models/<arch>/1, and leaves nothing else behind."""
    assert export(root).exit_code == 0
    models = root / "models"
    assert [str(path.relative_to(models)) for path in listing(models)] == [
        "digitnet",
        "digitnet/1",
        "digitnet/1/golden.npz",
        "digitnet/1/model.onnx",
    ]


def test_graph(root: Path) -> None:
    """The file passes ONNX's full check, with the contract's inputs and outputs, opset pinned."""
    export(root)
    model = onnx.load(root / "models/digitnet/1/model.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]

    def signature(value: onnx.ValueInfoProto) -> tuple[str, int, list[str | int]]:
        tensor = value.type.tensor_type
        sides = [side.dim_param or side.dim_value for side in tensor.shape.dim]
        return value.name, tensor.elem_type, sides

    assert [signature(value) for value in model.graph.input] == [
        ("pixels", onnx.TensorProto.FLOAT, ["batch", 1, 28, 28])
    ]
    assert [signature(value) for value in model.graph.output] == [
        ("logits", onnx.TensorProto.FLOAT, ["batch", 10]),
        ("probabilities", onnx.TensorProto.FLOAT, ["batch", 10]),
    ]


def test_graph_is_lean(root: Path) -> None:
    """Batch norm is folded into the convolutions, and no cast or transpose strays in."""
    export(root)
    model = onnx.load(root / "models/digitnet/1/model.onnx")
    assert {node.op_type for node in model.graph.node} <= {
        "Conv",
        "Relu",
        "MaxPool",
        "Reshape",
        "Gemm",
        "Softmax",
    }


def test_nothing_of_the_machine_travels(root: Path, project: Path) -> None:
    """The file names no path of the machine that it was exported on."""
    export(root)
    content = (root / "models/digitnet/1/model.onnx").read_bytes()
    for path in (project, root, Path(torch.__file__).parent, Path.home()):
        assert str(path).encode() not in content


def test_metadata(root: Path) -> None:
    """The file says where it comes from, and all of it is true."""
    before = datetime.now(UTC).replace(microsecond=0)
    export(root)
    model = onnx.load(root / "models/digitnet/1/model.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    run = Checkpoint.load(root / "runs/digitnet")
    assert run.test is not None
    assert facts.pop("git_commit") == run.git_commit
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", run.git_commit)
    assert 0 <= float(facts.pop("parity_max_abs_logit_diff")) <= 1e-4
    created = facts.pop("created")
    assert created.endswith("Z")
    assert before <= datetime.fromisoformat(created) <= before + timedelta(minutes=5)
    assert json.loads(facts.pop("recipe")) == asdict(
        replace(RECIPES["digitnet"]["default"], epochs=1)
    )
    assert facts == {
        "architecture": "digitnet",
        "parameters": str(parameter_count(run.best_model())),
        "dataset": "digits",
        "dataset_sha256": dataset_sha256(root / "data/digits/raw"),
        "seed": "7",
        "test_accuracy": repr(run.test.accuracy),
        "temperature": repr(run.temperature),
        "golden_tolerance": "0.0001",
        "torch_version": torch.__version__,
        "onnx_version": onnx.__version__,
    }


def test_golden_file(root: Path) -> None:
    """golden.npz holds at least 64 inputs in [0, 1], always the same, none from the data set."""
    export(root)
    with np.load(root / "models/digitnet/1/golden.npz") as golden:
        pixels, logits = golden["pixels"], golden["logits"]
    assert pixels.dtype == logits.dtype == np.float32
    assert pixels.shape[1:] == (1, 28, 28)
    assert logits.shape == (len(pixels), 10)
    assert len(pixels) >= 64
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    np.testing.assert_array_equal(pixels, golden_pixels())
    digits = load("digits", root / "data", torch.device("cpu"))
    known = {image.numpy().tobytes() for image in digits.train.images.float() / 255}
    assert not known & {image.tobytes() for image in pixels}


def test_next_free_version(root: Path) -> None:
    """Each export is the next version; one can be named, but none is overwritten."""
    export(root)
    assert export(root, "--version", "10").exit_code == 0
    export(root)
    versions = sorted(int(path.name) for path in (root / "models/digitnet").iterdir())
    assert versions == [1, 10, 11]
    before = (root / "models/digitnet/10/model.onnx").read_bytes()
    assert "models/digitnet/10 exists already" in refused(export(root, "--version", "10"))
    assert (root / "models/digitnet/10/model.onnx").read_bytes() == before


@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_failed_parity_leaves_models_as_it_was(root: Path, name: str) -> None:
    """A model whose answers are no numbers is refused, and models/ is untouched."""
    export(root)
    before = listing(root / "models")
    run = Checkpoint.load(root / "runs/digitnet")
    run.best_weights[name][0] = torch.nan
    run.save(root / "runs/digitnet")
    assert "Parity failed" in refused(export(root))
    assert listing(root / "models") == before


def test_export_before_train(tmp_path: Path) -> None:
    """Without a run, export says to train first."""
    assert "train first (`make train ARCH=" in refused(export(tmp_path))
    assert not list(tmp_path.iterdir())


def test_unfinished_run(root: Path) -> None:
    """A run that was interrupted is not exported."""
    run = Checkpoint.load(root / "runs/digitnet")
    run.test = None
    run.save(root / "runs/digitnet")
    assert "not finished" in refused(export(root))


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_corrupt_checkpoint(root: Path, kept: int) -> None:
    """A checkpoint that was cut short is named."""
    path = root / "runs/digitnet/checkpoint.pt"
    path.write_bytes(path.read_bytes()[:kept])
    assert f"{path} is damaged" in refused(export(root))


def test_foreign_checkpoint(root: Path) -> None:
    """A file of PyTorch's that is not ours is refused as well."""
    path = root / "runs/digitnet/checkpoint.pt"
    torch.save({"weights": torch.zeros(1)}, path)
    assert f"{path} is damaged" in refused(export(root))


def test_run_of_another_architecture(root: Path) -> None:
    """A run's model is not exported under another architecture's name."""
    said = refused(export(root, "--arch", "tiny", "--name", "digitnet"))
    assert "holds a digitnet" in said


def test_other_data_than_trained_on(root: Path) -> None:
    """A run is not proved on other data than it was trained on."""
    run = Checkpoint.load(root / "runs/digitnet")
    run.run = replace(run.run, dataset_sha256="0" * 64)
    run.save(root / "runs/digitnet")
    assert "train again" in refused(export(root))
    assert not listing(root / "models")


def test_models_folder_that_is_a_file(root: Path) -> None:
    """A models folder that cannot be written ends in one sentence."""
    (root / "models").rmdir()
    (root / "models").touch()
    assert f"{root}/models/digitnet" in refused(export(root))
