"""The stored results beside the model files that they are about; what is missing is None."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.config import Recipe
from training.experiments import plan
from training.experiments.plan import REFERENCES, Reference
from training.experiments.results import read
from training.export import identify, newest
from training.models import ARCHITECTURES, parameter_count

Found = dict[str, Any]


@dataclass(frozen=True)
class Studied:
    """A recipe, and what its study found.

    Attributes:
        arch: the architecture's name.
        recipe: the recipe's name.
        parameters: how many the architecture has.
        found: what `python -m training study` stored.
        reference: the public figure for this architecture and recipe.
    """

    arch: str
    recipe: str
    parameters: int
    found: Found | None
    reference: Reference | None


@dataclass(frozen=True)
class Version:
    """An exported version, and what is stored about it.

    Attributes:
        file: its name, number, hash, size and metadata, as `export.identify` has them.
        here: whether the file is in models/; else it is known from its result alone.
        recipe: the one in its metadata.
        study: the study that its run belongs to.
        run: that run, among those of the study.
        examined: what `python -m training examine` stored of this very file.
        robustness: what `python -m training robustness` stored of this very file.
        quantization: what `python -m training quantization` stored of this very file and the
            other form, int8 or float, of the same run.
    """

    file: Found
    here: bool
    recipe: Found
    study: Studied | None
    run: Found | None
    examined: Found | None
    robustness: Found | None
    quantization: Found | None

    @property
    def is_int8(self) -> bool:
        """Whether it is a variant of another model, in integers."""
        return "quantization" in self.file["metadata"]

    @property
    def form(self) -> Found:
        """How an int8 variant was made, as its metadata says."""
        return dict(json.loads(self.file["metadata"]["quantization"]))


def studied(results: Path) -> list[Studied]:
    """Returns the plan's studies in its order.

    Raises:
        TrainingError: if a stored result is damaged.
    """
    return [
        Studied(
            study.arch,
            study.recipe,
            parameter_count(ARCHITECTURES[study.arch]()),
            stored(results, study.name),
            REFERENCES.get(study.arch) if study.recipe == "default" else None,
        )
        for study in plan.STUDIES
    ]


def versions(results: Path, models: Path) -> list[Version]:
    """Returns the newest version of each model in `models`, then what was examined elsewhere.

    Raises:
        TrainingError: if a stored result, or a model file, is damaged.
    """
    there = {folder.name: newest(folder) for folder in sorted(models.glob("[!.]*"))}
    here = [identify(models / name / str(version)) for name, version in there.items() if version]
    names = {file["name"] for file in here}
    elsewhere = [read(file) for file in sorted(results.glob("examined-*.json"))]
    return [_version(results, file, here=True) for file in here] + [
        _version(results, file, here=False) for file in elsewhere if file["name"] not in names
    ]


def stored(results: Path, name: str) -> Found | None:
    """Returns the result of that name; None if it is not there.

    Raises:
        TrainingError: if it is damaged.
    """
    file = results / f"{name}.json"
    return read(file) if file.exists() else None


def same_recipe(one: Found, other: Found) -> bool:
    """Returns whether two stored recipes are the same; choices made since have their defaults."""
    defaults = asdict(Recipe())
    return defaults | one == defaults | other


def _version(results: Path, file: Found, *, here: bool) -> Version:
    facts = file["metadata"]
    recipe = json.loads(facts["recipe"])
    of_its_recipe = (
        (study, study.found["runs"])
        for study in studied(results)
        if study.found
        and study.arch == facts["architecture"]
        and same_recipe(study.found["settings"], recipe)
    )
    study, runs = next(of_its_recipe, (None, []))

    def about_this_file(kind: str) -> Found | None:
        found = stored(results, f"{kind}-{file['name']}")
        return found if found and found["sha256"] == file["sha256"] else None

    both = stored(results, f"quantization-{facts['architecture']}")
    compared = both and file["sha256"] in (both["float"]["sha256"], both["int8"]["sha256"])

    return Version(
        file=file,
        here=here,
        recipe=recipe,
        study=study,
        run=next((run for run in runs if str(run["seed"]) == facts["seed"]), None),
        examined=about_this_file("examined"),
        robustness=about_this_file("robustness"),
        quantization=both if compared else None,
    )
