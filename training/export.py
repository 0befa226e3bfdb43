"""Turns a finished run into a new version in models/: proved first, then in one move."""

import tempfile
from pathlib import Path

import onnx
from rich.progress import Progress

from training import golden
from training.checkpoint import Checkpoint
from training.data import Dataset
from training.errors import TrainingError
from training.files import writable
from training.onnx_graph import to_onnx
from training.parity import Parity, compare
from training.provenance import metadata

MODEL_FILE = "model.onnx"
GOLDEN_FILE = "golden.npz"


def export(
    checkpoint: Checkpoint,
    dataset: Dataset,
    models: Path,
    *,
    version: int | None,
    progress: Progress,
) -> tuple[Path, Parity]:
    """Writes a run's best weights as `models/<arch>/<version>/`, once parity is proved.

    Args:
        checkpoint: the run's last.
        dataset: the one that it was trained on, on the CPU.
        models: the folder of all models.
        version: the new version's number, or None for the next free one.
        progress: shows how far it is.

    Returns:
        the new version's folder, and what the proof found.

    Raises:
        TrainingError: if the run is not finished, the data is not the run's,
            the version is taken, parity fails, or `models` cannot be written;
            `models` is then as it was.
    """
    run = checkpoint.run
    if checkpoint.test is None:
        raise TrainingError(f"The run of {run.arch} is not finished: go on with train --resume.")
    if dataset.sha256 != run.dataset_sha256:
        raise TrainingError(
            f"The {dataset.name} files are not those that {run.arch} was trained on: train again."
        )
    with writable(models / run.arch):
        target = models / run.arch / str(version or _next_version(models / run.arch))
        if target.exists():
            raise TrainingError(f"{target} exists already: choose another version.")

    model = checkpoint.best_model()
    proto = to_onnx(model)
    parity = compare(model, proto.SerializeToString(), dataset.test, progress)
    parity.require()
    onnx.helper.set_model_props(proto, metadata(checkpoint, checkpoint.test, model, parity))
    onnx.checker.check_model(proto, full_check=True)

    with writable(target):
        models.mkdir(parents=True, exist_ok=True)
        # Whoever scans models/ meanwhile passes over a name with a dot.
        with tempfile.TemporaryDirectory(dir=models, prefix=".export-") as staging:
            version_folder = Path(staging) / "version"
            version_folder.mkdir()
            onnx.save(proto, version_folder / MODEL_FILE)
            golden.write(model, version_folder / GOLDEN_FILE)
            golden.check(version_folder / GOLDEN_FILE, version_folder / MODEL_FILE)
            target.parent.mkdir(exist_ok=True)
            version_folder.rename(target)
    return target, parity


def _next_version(folder: Path) -> int:
    """Returns one more than the highest version in a model's folder, or 1."""
    versions = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal()]
    return max(versions, default=0) + 1
