"""All that the report is made from, found anew, command by command."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from training.config import TEACHERS, recipe_named
from training.distillation import folders as teachers
from training.errors import TrainingError
from training.experiments import plan
from training.experiments.evidence import Found, Version, same_recipe, stored, versions
from training.options import pick_device

Folders = Mapping[str, Path]

FAST = ("digitnet", "fast")  # of which the benchmarks are


def reproduce(
    folders: Folders, *, dataset: str, device: str, jobs: int, say: Callable[[str], None]
) -> None:
    """Studies, exports, measures and reports what the plan says, one command after another.

    What is done already is not done again, so that it can be interrupted.

    Args:
        folders: "data", "runs", "models", "results" and "docs".
        dataset: "mnist", or "digits" for a trial.
        device: what to train on, as the command line names it.
        jobs: runs at a time.
        say: told each command before it runs.

    Raises:
        TrainingError: if one of the commands fails.
    """
    for words in missing(folders, dataset=dataset, device=device, jobs=jobs):
        say(shlex.join(["python", *words]))
        # Each in a process of its own: its result then names the very command that finds it.
        done = subprocess.run([sys.executable, *words], check=False)  # noqa: S603 - our own
        if done.returncode:
            raise TrainingError("This command failed: mend that, and reproduce goes on from there.")


def missing(folders: Folders, *, dataset: str, device: str, jobs: int) -> Iterator[list[str]]:
    """Yields Python's arguments for each command that is still to run, given all those before.

    The arguments are those of `reproduce`.
    """
    how = [f"--dataset={dataset}", f"--device={device}"]
    for study in plan.STUDIES:
        if not _is_studied(study, stored(folders["results"], study.name), dataset):
            yield from _missing_teachers(folders, study)
            which = [f"--arch={study.arch}", f"--recipe={study.recipe}", f"--seeds={study.seeds}"]
            at = _flags(folders, "results", "data", "runs")
            yield ["-m", "training", "study", *which, *how, f"--jobs={jobs}", *at]
    yield from _missing_exports(folders)
    yield from _missing_measurements(folders)
    at = _flags(folders, "results", "data")
    kind = pick_device(device).type
    fast = stored(folders["results"], f"fast-{kind}")
    if not (fast and _is_of(fast["fast"] | fast, FAST, dataset)):
        yield ["-m", "bench.training", *how, *at]
    distributed = stored(folders["results"], f"distributed-{kind}")
    if not (distributed and _is_of(distributed, FAST, dataset)):
        yield ["-m", "bench.distributed", "--recipe=fast", *how, *at]
    yield ["-m", "training", "report", *_flags(folders, "results", "models", "docs")]


def _missing_teachers(folders: Folders, study: plan.Study) -> Iterator[list[str]]:
    """Those that its recipe wants from `TEACHERS`, where version n is of seed n - 1."""
    for version in teachers(recipe_named(study.arch, study.recipe).teacher):
        if version.is_relative_to(TEACHERS) and not version.exists():
            arch, number = version.parts[-2:]
            which = [f"--arch={arch}", f"--name={arch}-default-{int(number) - 1}"]
            at = [f"--models={TEACHERS}", *_flags(folders, "data", "runs")]
            yield ["-m", "training", "export", *which, f"--version={number}", *at]


def _missing_exports(folders: Folders) -> Iterator[list[str]]:
    for study in plan.STUDIES:
        found = stored(folders["results"], study.name)
        for form in study.exports:
            if found and not _is_exported(found, form, _exported(folders)):
                which = [f"--arch={study.arch}", f"--name={study.name}-{found['chosen']}"]
                in_int8 = ["--quantize"] if form == "int8" else []
                at = _flags(folders, "models", "data", "runs")
                yield ["-m", "training", "export", *which, *in_int8, *at]


def _missing_measurements(folders: Folders) -> Iterator[list[str]]:
    for command, kind in (("examine", "examined"), ("robustness", "robustness")):
        left = [version.file for version in _exported(folders) if not getattr(version, kind)]
        if left:
            at = _flags(folders, "results", "data")
            names = [str(folders["models"] / f["name"] / str(f["version"])) for f in left]
            yield ["-m", "training", command, *at, *names]
    in_both = {study.arch for study in plan.STUDIES if "int8" in study.exports}
    for version in _exported(folders):
        if version.file["name"] in in_both and not version.quantization:
            arch = f"--arch={version.file['name']}"
            yield ["-m", "training", "quantization", arch, *_flags(folders, "models", "results")]


def _flags(folders: Folders, *names: str) -> list[str]:
    return [f"--{name}={folders[name]}" for name in names]


def _exported(folders: Folders) -> list[Version]:
    there = versions(folders["results"], folders["models"])
    return [version for version in there if version.here]


def _is_studied(study: plan.Study, found: Found | None, dataset: str) -> bool:
    """Returns whether what is stored is of this recipe as it is now, with all its seeds."""
    return (
        found is not None
        and _is_of(found, (study.arch, study.recipe), dataset)
        and found["test_accuracy"]["n"] >= study.seeds
    )


def _is_of(found: Found, recipe: tuple[str, str], dataset: str) -> bool:
    """Returns whether what is stored is of this architecture's recipe as it is now."""
    return found["dataset"] == dataset and same_recipe(
        found["settings"], asdict(recipe_named(*recipe))
    )


def _is_exported(study: Found, form: str, there: Sequence[Version]) -> bool:
    """Returns whether the chosen run of a study is among the versions that are there."""
    return any(
        version.is_int8 == (form == "int8")
        and version.file["metadata"]["architecture"] == study["arch"]
        and version.file["metadata"]["dataset_sha256"] == study["dataset_sha256"]
        and version.file["metadata"]["seed"] == str(study["chosen"])
        and same_recipe(version.recipe, study["settings"])
        for version in there
    )
