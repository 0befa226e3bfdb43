"""Turns a finished run into a new version in models/: proved first, then in one move."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from rich.progress import Progress

from training import golden, quantization
from training.checkpoint import Checkpoint
from training.data import Dataset
from training.errors import TrainingError
from training.files import writable
from training.onnx_graph import to_onnx
from training.parity import Parity, compare
from training.provenance import metadata

MODEL_FILE = "model.onnx"
GOLDEN_FILE = "golden.npz"


def export(  # noqa: PLR0913 - what it takes is told apart by name
    checkpoint: Checkpoint,
    dataset: Dataset,
    models: Path,
    *,
    version: int | None,
    quantized: bool,
    progress: Progress,
) -> tuple[Path, Parity]:
    """Writes a run's best weights as `models/<arch>/<version>/`, once parity is proved.

    In int8, what is proved is that the accuracy is that of float, and the name
    is `<arch>-int8`.

    Args:
        checkpoint: the run's last.
        dataset: the one that it was trained on, on the CPU.
        models: the folder of all models.
        version: the new version's number, or None for the next free one.
        quantized: whether to write it in int8.
        progress: shows how far it is.

    Returns:
        the new version's folder, and what the proof found.

    Raises:
        TrainingError: if the run is not finished, the data is not the run's,
            the version is taken, parity fails or int8 loses accuracy, or `models`
            cannot be written; `models` is then as it was.
    """
    run = checkpoint.run
    if checkpoint.test is None:
        raise TrainingError(f"The run of {run.arch} is not finished: go on with train --resume.")
    if dataset.sha256 != run.dataset_sha256:
        raise TrainingError(
            f"The {dataset.name} files are not those that {run.arch} was trained on: train again."
        )
    folder = models / (run.arch + quantization.SUFFIX if quantized else run.arch)
    with writable(folder):
        target = folder / str(version or newest(folder) + 1)
        if target.exists():
            raise TrainingError(f"{target} exists already: choose another version.")

    model = checkpoint.best_model()
    proto = to_onnx(model)
    if quantized:
        proto = quantization.quantize(proto, dataset.train)
    content = proto.SerializeToString()
    parity = compare(model, content, dataset.test, progress)
    facts = metadata(checkpoint, checkpoint.test, model, parity)
    if quantized:
        quantization.require(parity, checkpoint.test)
        off = golden.difference(content, golden.golden_pixels(), golden.golden_logits(model))
        facts |= quantization.facts(parity, checkpoint.test, off)
    else:
        parity.require()
    onnx.helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto, full_check=True)

    with writable(target):
        models.mkdir(parents=True, exist_ok=True)
        # Whoever scans models/ meanwhile passes over a name with a dot.
        with tempfile.TemporaryDirectory(dir=models, prefix=".export-") as staging:
            version_folder = Path(staging) / "version"
            version_folder.mkdir()
            onnx.save(proto, version_folder / MODEL_FILE)
            golden.write(model, version_folder / GOLDEN_FILE)
            golden.check(
                version_folder / GOLDEN_FILE,
                version_folder / MODEL_FILE,
                float(facts["golden_tolerance"]),
            )
            target.parent.mkdir(exist_ok=True)
            version_folder.rename(target)
    return target, parity


def newest(folder: Path) -> int:
    """Returns the highest version in a model's folder, or 0 where there is none."""
    versions = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal()]
    return max(versions, default=0)


def identify(folder: Path) -> dict[str, Any]:
    """Returns a version's name and number, its file's SHA-256, size in bytes, and metadata.

    Args:
        folder: the version's, `…/<name>/<version>`.

    Raises:
        TrainingError: if it holds no model of ours.
    """
    path = folder.resolve() / MODEL_FILE
    name, number = path.parts[-3:-1]
    try:
        content = path.read_bytes()
        model = onnx.load_from_string(content)
    except (OSError, DecodeError) as error:
        raise TrainingError(
            f"{folder / MODEL_FILE} cannot be read: name a version that was exported, such as "
            "models/digitnet/1."
        ) from error
    facts = {entry.key: entry.value for entry in model.metadata_props}
    if "architecture" not in facts or not number.isdecimal():
        raise TrainingError(
            f"{folder} was not exported here: name a version that was, such as models/digitnet/1."
        )
    return {
        "name": name,
        "version": int(number),
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "metadata": facts,
    }
