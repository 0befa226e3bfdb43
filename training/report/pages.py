"""The report: pages and plots, made from stored results and model files alone."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from training.config import choices
from training.errors import TrainingError
from training.experiments.evidence import Found, Version, stored, studied, versions
from training.experiments.plan import OTHERS, REFERENCES
from training.files import atomic
from training.report import figures
from training.report.robustness_plots import plot_distortions, plot_reliability
from training.report.wording import FILTERS

# What lies between these lines of the README is the report's.
README_START, README_END = "<!-- make report: -->\n", "<!-- :make report -->\n"


def report(results: Path, models: Path, docs: Path) -> list[Path]:
    """Writes the overview, a card for each model, their plots, and the README's table.

    The same files give the same bytes. What was not measured is said to be so.

    Args:
        results: the folder of what experiments found.
        models: the folder of all models, of which the newest versions are reported.
        docs: gets `models.md` and, in `models/`, cards and plots. In a README beside
            it the table of models is written anew.

    Returns:
        what was written.

    Raises:
        TrainingError: if a stored result or a model is damaged, the README has
            lost its marks, or something cannot be written.
    """
    studies, exported = studied(results), versions(results, models)
    cards = [version for version in exported if version.here]
    measured = {f"{study.arch}, {study.recipe}": study.found for study in studies if study.found}
    examined = {v.file["name"]: v.examined for v in exported if v.examined}
    distorted = {v.file["name"]: v.robustness for v in exported if v.robustness}
    facts = {
        "studies": studies,
        "trained_on": _by_machine(measured),
        "references": REFERENCES,
        "others": OTHERS,
        "fast": {device: stored(results, f"fast-{device}") for device in ("cpu", "cuda")},
        "distributed": {
            device: stored(results, f"distributed-{device}") for device in ("cpu", "cuda")
        },
        "versions": exported,
        "distorted": distorted,
        "timed_on": _by_machine(examined),
        "cards": cards,
        "meanings": {name: meaning for name, (_, meaning) in choices().items()},
    }
    pages = {docs / "models.md": _render("models.md.j2", facts)}
    plots = {docs / "models/accuracy.png": figures.accuracy(studies)} if measured else {}
    if distorted:
        plots[docs / "models/robustness.png"] = plot_distortions(distorted)
    for version in cards:
        name = version.file["name"]
        pages[docs / f"models/{name}.md"] = _render("card.md.j2", facts | {"version": version})
        plots |= {docs / f"models/{name}-{what}.png": figure for what, figure in _plots(version)}
    readme = docs.parent / "README.md"
    if readme.exists():
        pages[readme] = _with_table(readme, _render("readme.md.j2", facts))
    for path, text in pages.items():
        with atomic(path) as temporary:
            temporary.write_text(text)
    for path, figure in plots.items():
        figures.save(figure, path)
    return [*pages, *plots]


def _plots(version: Version) -> Iterator[tuple[str, Figure]]:
    """Yields the plots that a model card can have, by what they show."""
    if version.study and version.study.found:
        yield "curves", figures.curves(version.study.found)
    if version.examined:
        yield "confusion", figures.confusion(version.examined["confusion"])
    if version.robustness:
        yield "robustness", plot_distortions({version.file["name"]: version.robustness})
        yield "reliability", plot_reliability(version.file["name"], version.robustness)


def _render(template: str, facts: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown, from files of our own
    )
    environment.filters |= FILTERS
    return environment.get_template(template).render(facts)


def _with_table(readme: Path, table: str) -> str:
    """Returns the README's text with the table between its marks."""
    try:
        before, rest = readme.read_text().split(README_START)
        _, after = rest.split(README_END)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{readme} is not there, or not with one pair of lines {README_START.strip()} and "
            f"{README_END.strip()}: put them around its table of models."
        ) from error
    return f"{before}{README_START}{table}{README_END}{after}"


def _by_machine(found: Mapping[str, Found]) -> dict[str, list[str]]:
    """Returns the names of what was found on each machine."""
    machines: dict[str, list[str]] = {}
    for name, result in found.items():
        machines.setdefault(result["machine"], []).append(name)
    return machines
