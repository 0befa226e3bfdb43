"""What an experiment found, kept as JSON with all that it takes to judge it and to repeat it."""

import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from training.errors import TrainingError
from training.files import write_json
from training.provenance import git_commit

PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")


def keep(file: Path, found: dict[str, Any]) -> None:
    """Writes what was found, with the command, machine, versions, commit and time (UTC) beside it.

    Raises:
        TrainingError: if the file cannot be written.
    """
    evidence = {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "git_commit": git_commit(),
        "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    write_json(file, evidence | found)


def read(file: Path) -> dict[str, Any]:
    """Returns what `keep` has written.

    Raises:
        TrainingError: if the file is missing or damaged.
    """
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file} cannot be read ({error}): run `make reproduce`.") from error
    return found


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Returns mean, standard deviation, standard error of the mean, and n; one value has no spread.

    Args:
        values: one of each run.
    """
    n = len(values)
    deviation = statistics.stdev(values) if n > 1 else None
    return {
        "mean": statistics.mean(values),
        "standard_deviation": deviation,
        "standard_error": deviation and deviation / n**0.5,
        "n": n,
    }


def machine() -> str:
    """Returns the processor's name, how many of its CPUs are ours, and the GPU, if there is one."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{_cpu_model()}, {os.cpu_count()} CPUs{gpu}"


def _cpu_model() -> str:
    """Returns the CPU's name as Linux has it, or as Python does elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if "model name" in line), "unknown CPU")
