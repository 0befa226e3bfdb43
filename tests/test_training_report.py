"""The report says what is stored and nothing else, and what it is made from can be found anew."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from matplotlib.image import imread

from training.cli import main
from training.config import RECIPES, recipe_named
from training.experiments import plan
from training.experiments.reproduce import missing, reproduce
from training.experiments.results import keep, spread
from training.report.pages import report

# What the training benchmarks keep, which are too slow to run here.
SETTINGS = asdict(recipe_named("digitnet", "fast"))
FAST = {
    "dataset": "digits",
    "threads": 2,
    "fast": {
        "arch": "digitnet",
        "recipe": "fast",
        "settings": SETTINGS,
        "seconds": spread([2.0, 3.0]),
        "test_accuracy": spread([0.99, 0.992]),
    },
    "light": {
        "arch": "light",
        "recipe": "default",
        "seconds": spread([25.0]),
        "test_accuracy": spread([0.989]),
    },
}
DISTRIBUTED = {
    "dataset": "digits",
    "arch": "digitnet",
    "recipe": "fast",
    "settings": SETTINGS,
    "one_process": {"test_accuracy": spread([0.99, 0.992])},
    "two_processes": {"test_accuracy": spread([0.991, 0.991])},
    "difference": spread([0.001, -0.001]),
}
WHOLE_PLAN = plan.STUDIES


def folders(root: Path) -> dict[str, Path]:
    """Returns the folders that all is reproduced in."""
    at = {name: root / name for name in ("data", "runs", "models", "docs")}
    return at | {"results": root / "docs/results"}


def invoke(*words: str) -> Result:
    """Runs a command of `python -m training`, here."""
    return CliRunner().invoke(main, words)


def commands(root: Path) -> Iterator[list[str]]:
    """Yields what is left to do on the embedded digits, without `-m training`."""
    for words in missing(folders(root), dataset="digits", device="cpu", jobs=1):
        yield words[2 if words[1] == "training" else 1 :]


def write(root: Path) -> Result:
    """Runs `report` on what is in `root`."""
    at = folders(root)
    return invoke("report", *(f"--{name}={at[name]}" for name in ("results", "models", "docs")))


def written(root: Path) -> dict[str, bytes]:
    """Returns what the report consists of, by name: README, pages and plots."""
    paths = [*root.glob("README.md"), *root.glob("docs/*.md"), *root.glob("docs/models/*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def erase(root: Path) -> None:
    """Removes pages and plots."""
    (root / "docs/models.md").unlink()
    shutil.rmtree(root / "docs/models")


@pytest.fixture(scope="module", autouse=True)
def one_study() -> Iterator[None]:
    """A plan that takes seconds: the quickest recipe, with two seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "STUDIES", (plan.Study("tiny", "default", 2, exports=("float",)),))
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which all was reproduced on the embedded digits, with a README beside the docs."""
    root = tmp_path_factory.mktemp("reproduced")
    (root / "README.md").write_text(
        "Before\n<!-- make report: -->\nold\n<!-- :make report -->\nAfter\n"
    )
    keep(root / "docs/results/fast-cpu.json", FAST)
    keep(root / "docs/results/distributed-cpu.json", DISTRIBUTED)
    ran = []
    for words in commands(root):
        result = invoke(*words)
        assert result.exit_code == 0, result.output
        ran.append(words[0])
    assert ran == ["study", "export", "examine", "robustness", "report"]
    return root


@pytest.fixture
def root(done: Path, tmp_path: Path) -> Path:
    """A copy of `done` to work in."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    return tmp_path


def stored(root: Path, name: str) -> Any:
    """Returns a stored result."""
    return json.loads((root / f"docs/results/{name}.json").read_text())


def test_pages_and_plots(done: Path) -> None:
    """There are the overview, and a card with all its plots for the model that was exported."""
    assert written(done).keys() == {
        "README.md",
        "docs/models.md",
        "docs/models/accuracy.png",
        "docs/models/robustness.png",
        "docs/models/tiny.md",
        "docs/models/tiny-confusion.png",
        "docs/models/tiny-curves.png",
        "docs/models/tiny-reliability.png",
        "docs/models/tiny-robustness.png",
    }
    pages = [done / "docs/models.md", *done.glob("docs/models/*.md")]
    linked = {
        (page.parent / link).resolve()
        for page in pages
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text())
    }
    assert all(path.exists() for path in linked)
    assert {path.name for path in linked} >= {path.name for path in done.glob("docs/models/*")}


def test_figures_are_the_stored_ones(done: Path) -> None:
    """Overview, card and README state the figures that the results have."""
    study, examined = stored(done, "tiny-default"), stored(done, "examined-tiny")
    accuracies = [run["test_accuracy"] for run in study["runs"]]
    mean, deviation = 100 * np.mean(accuracies), 100 * np.std(accuracies, ddof=1)
    said = f"{mean:.2f} ± {deviation:.2f} % (2) on digits"
    [row] = [
        line
        for line in (done / "docs/models.md").read_text().splitlines()
        if line.startswith("| `tiny` | default |")
    ]
    seconds = np.mean([run["seconds"] for run in study["runs"]])
    assert [cell.strip() for cell in row.split("|")[3:-1]] == [
        "52,138", said, f"{deviation / 2**0.5:.3f} points", "97.86 %", f"{seconds:,.0f}"
    ]  # fmt: skip
    robustness = stored(done, "robustness-tiny")
    overview = (done / "docs/models.md").read_text()
    assert f"{100 * robustness['mean_accuracy']:.2f} %" in overview
    error = robustness["calibration"]["expected_calibration_error"]
    assert f"{100 * error:.2f} %" in overview
    card = (done / "docs/models/tiny.md").read_text()
    assert said in card
    assert f"{examined['correct']:,} of 360" in card
    assert examined["sha256"] in card
    assert f"The {len(examined['mistakes'])} mistakes" in card
    for image in examined["hardest"]:
        assert f"| {image['index']} | {image['label']} | {image['answer']} |" in card
    assert (
        "| cpu | `digitnet` | fast | 2.50 ± 0.71 s (2) | 99.10 ± 0.14 % (2) | 0.100 |" in overview
    )
    assert "| cpu | `light` | default | 25.00 s (1) | 98.90 % (1) | 1.000 |" in overview
    assert "| cuda | not measured |" in overview
    assert "0.00 ± 0.14 points (2)" in overview
    readme = (done / "README.md").read_text()
    assert readme.startswith("Before\n<!-- make report: -->\n| model |")
    assert readme.endswith("|\n<!-- :make report -->\nAfter\n")
    assert said in readme


def test_same_results_same_bytes(root: Path) -> None:
    """The same files give the same pages, README and plots, to the byte."""
    before = written(root)
    erase(root)
    assert write(root).exit_code == 0
    assert written(root) == before


def test_nothing_measured(tmp_path: Path) -> None:
    """Where nothing is stored the report is made all the same, and says what was not measured."""
    assert write(tmp_path).exit_code == 0
    assert written(tmp_path).keys() == {"docs/models.md"}
    assert (
        "| `tiny` | default | 52,138 | not measured |" in (tmp_path / "docs/models.md").read_text()
    )


def test_model_alone(root: Path) -> None:
    """A model whose results are missing has a card from its own metadata, with gaps."""
    shutil.rmtree(root / "docs")
    assert write(root).exit_code == 0
    assert written(root).keys() == {"README.md", "docs/models.md", "docs/models/tiny.md"}
    card = (root / "docs/models/tiny.md").read_text()
    assert card.lower().count("not measured") == 5
    assert ".png" not in card


def test_results_of_another_file(root: Path) -> None:
    """What was found about another file of the same name is not said of this one."""
    for name in ("examined-tiny", "robustness-tiny"):
        other = stored(root, name) | {"sha256": "0" * 64}
        (root / f"docs/results/{name}.json").write_text(json.dumps(other))
    assert write(root).exit_code == 0
    card = (root / "docs/models/tiny.md").read_text()
    assert card.lower().count("not measured") == 4
    assert [words[0] for words in commands(root)] == ["examine", "robustness", "report"]


def test_every_recipe_is_studied() -> None:
    """The plan has every recipe of every architecture, once, and at least one export of each."""
    planned = [(study.arch, study.recipe) for study in WHOLE_PLAN]
    assert sorted(planned) == sorted((arch, name) for arch in RECIPES for name in RECIPES[arch])
    teachers = {"digitnet-xl"}  # which are exported for those who learn from them alone
    got = {study.arch for study in WHOLE_PLAN if study.exports}
    assert got | teachers == RECIPES.keys()


def test_nothing_is_done_twice(done: Path) -> None:
    """Where all is done, nothing is left but to write the report."""
    assert [words[0] for words in commands(done)] == ["report"]


def test_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is done, and what is not of the plan is done again."""
    shutil.rmtree(root / "models")
    assert next(commands(root))[0] == "export"
    with monkeypatch.context() as patch:
        patch.setattr(plan, "STUDIES", (plan.Study("tiny", "default", 3),))
        assert next(commands(root))[0] == "study"
    (root / "docs/results/tiny-default.json").unlink()
    assert next(commands(root))[0] == "study"


def test_teachers_are_exported_for_those_who_learn(
    root: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each seed becomes a version of its own, unless all is known that it would teach."""
    monkeypatch.chdir(root)  # where there are no teachers yet
    xl, taught = plan.Study("digitnet-xl", "default", 3), plan.Study("digitnet-l", "best", 3)
    monkeypatch.setattr(plan, "STUDIES", (xl, taught))
    first, *exports, last = islice(commands(root), 5)
    assert first[:2] == ["study", "--arch=digitnet-xl"]
    for seed, words in enumerate(exports):
        run = f"--name=digitnet-xl-default-{seed}"
        assert words[:4] == ["export", "--arch=digitnet-xl", run, f"--version={seed + 1}"]
        assert words[4] == "--models=runs/teachers"
    assert last[:3] == ["study", "--arch=digitnet-l", "--recipe=best"]
    at = folders(project)
    left = missing(at, dataset="mnist", device="cpu", jobs=1)
    assert not [words for words in left if "--arch=digitnet-xl" in words]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"monitor": None}, []),  # was not yet a choice
        ({"learning_rate": 0.5}, ["study"]),
        ({"forgotten": 1}, ["study"]),  # is no choice any more
    ],
)
def test_what_another_recipe_found_is_found_anew(
    root: Path, change: dict[str, Any], again: list[str]
) -> None:
    """A result stands for a recipe as it is now; choices that came later have their defaults."""
    found = stored(root, "tiny-default")
    settings = {
        key: value for key, value in (found["settings"] | change).items() if value is not None
    }
    keep(root / "docs/results/tiny-default.json", found | {"settings": settings})
    assert [words[0] for words in commands(root) if words[0] == "study"] == again


def test_benchmarks_are_run(root: Path) -> None:
    """Training's benchmarks are among what is reproduced."""
    (root / "docs/results/fast-cpu.json").unlink()
    (root / "docs/results/distributed-cpu.json").unlink()
    assert [words[0] for words in commands(root)] == [
        "bench.training",
        "bench.distributed",
        "report",
    ]


def test_a_command_that_fails(root: Path) -> None:
    """A command that fails ends the reproduction in a sentence, after its own."""
    erase(root)
    (root / "docs/models").touch()
    said: list[str] = []
    with pytest.raises(Exception, match="goes on from there"):
        reproduce(folders(root), dataset="digits", device="cpu", jobs=1, say=said.append)
    assert len(said) == 1
    assert said[0].startswith("python -m training report ")


def test_damaged_result(root: Path) -> None:
    """A result that cannot be read is named in one sentence."""
    (root / "docs/results/tiny-default.json").write_text("{")
    result = write(root)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert f"{root}/docs/results/tiny-default.json" in result.stderr


def test_readme_without_marks(root: Path) -> None:
    """A README that has lost the marks of its table is named, and nothing is written."""
    (root / "README.md").write_text("Nothing\n")
    erase(root)
    result = write(root)
    assert result.exit_code == 1
    assert f"{root}/README.md" in result.stderr
    assert written(root).keys() == {"README.md"}


def test_committed_report(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README, pages and plots in the repository are what its results and models give."""
    monkeypatch.setattr(plan, "STUDIES", WHOLE_PLAN)
    shutil.copy(project / "README.md", tmp_path)
    models = project / "models"  # and whatever else was exported there
    for version in (*models.glob("digitnet*/1"), *models.glob("digitnet-l*/2")):
        shutil.copytree(version, tmp_path / "models" / version.parent.name / version.name)
    report(project / "docs/results", tmp_path / "models", tmp_path / "docs")
    made, committed = written(tmp_path), written(project)
    assert {name for name in committed if "models" in name} == made.keys() - {"README.md"}
    for name, content in made.items():
        if name.endswith(".md"):
            assert content == committed[name]
        else:  # processors round differently in the last bits
            one, other = imread(tmp_path / name), imread(project / name)
            assert one.shape == other.shape
            assert (np.abs(one - other) > 0.1).mean() < 1e-4


def test_readme_on_int8(project: Path) -> None:
    """What the README says that int8 gains is what is stored."""
    found = json.loads((project / "docs/results/quantization-digitnet.json").read_text())
    said = " ".join((project / "README.md").read_text().split())
    before, after = found["float"], found["int8"]
    assert f"from {before['bytes']:,} to {after['bytes']:,} bytes" in said
    one_image = [form["p50_us"]["median"] for form in (after, before)]
    assert "{:.1f} µs instead of {:.1f}".format(*one_image) in said
    at_once = [form["images_per_second"]["median"] for form in (after, before)]
    assert "{:,.0f} a second instead of {:,.0f}".format(*at_once) in said


def test_readme_on_training(project: Path) -> None:
    """How long the README says that training took is what is stored of the bundled model's run."""
    model = onnx.load(project / "models/digitnet/1/model.onnx")
    [seed] = [entry.value for entry in model.metadata_props if entry.key == "seed"]
    study = json.loads((project / "docs/results/digitnet-default.json").read_text())
    [run] = [run for run in study["runs"] if str(run["seed"]) == seed]
    epochs, seconds = study["settings"]["epochs"], run["seconds"]
    said = " ".join((project / "README.md").read_text().split())
    assert f"the bundled model's {epochs} epochs took {seconds:.0f} s" in said
