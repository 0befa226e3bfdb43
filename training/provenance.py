"""Where a model comes from: the facts that travel in its file."""

import json
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from torch import nn

from training.checkpoint import Checkpoint, Score
from training.golden import TOLERANCE
from training.models import parameter_count
from training.parity import Parity


def git_commit() -> str:
    """Returns this code's commit, "-dirty" where tracked files differ, "unknown" without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def metadata(
    checkpoint: Checkpoint, test: Score, model: nn.Module, parity: Parity
) -> dict[str, str]:
    """Returns what an exported model's metadata_props say.

    Args:
        checkpoint: of the run that trained it.
        test: its score on the test images.
        model: the model.
        parity: what comparing it with onnxruntime found.
    """
    run = checkpoint.run
    return {
        "architecture": run.arch,
        "parameters": str(parameter_count(model)),
        "dataset": run.dataset,
        "dataset_sha256": run.dataset_sha256,
        "recipe": json.dumps(asdict(run.recipe)),
        "seed": str(run.seed),
        **({"teacher_sha256": run.teacher_sha256} if run.teacher_sha256 else {}),
        "test_accuracy": repr(test.accuracy),
        "temperature": repr(checkpoint.temperature),
        "parity_max_abs_logit_diff": repr(parity.max_abs_logit_diff),
        "golden_tolerance": f"{TOLERANCE:f}".rstrip("0"),
        "torch_version": version("torch"),
        "onnx_version": version("onnx"),
        "git_commit": checkpoint.git_commit,
        "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
