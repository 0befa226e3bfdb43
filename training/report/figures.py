"""The report's plots; the same results give the same bytes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from training.experiments.evidence import Found, Studied
from training.experiments.plan import OTHERS
from training.files import atomic
from training.models import ARCHITECTURES, CLASSES

# Where accuracy is marked, since the axis is the error rate's logarithm.
MARKS = (0.95, 0.97, 0.98, 0.99, 0.995, 0.997, 0.998, 0.999)
SIZES = (10_000, 20_000, 50_000, 100_000, 200_000, 500_000)  # where parameters are
DPI = 110


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically, and without the writer's name and version.

    Raises:
        TrainingError: if it cannot be written.
    """
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def accuracy(studies: Sequence[Studied]) -> Figure:
    """Draws each study's mean accuracy over its parameters, with the references beside them."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    colours = {arch: f"C{number}" for number, arch in enumerate(ARCHITECTURES)}
    for study in studies:
        colour = colours[study.arch]
        if study.found:
            test = study.found["test_accuracy"]
            axes.errorbar(
                study.parameters,
                1 - test["mean"],
                test["standard_error"],
                fmt="o",
                color=colour,
                capsize=3,
            )
            label = study.arch if study.recipe == "default" else f"{study.arch}, {study.recipe}"
            place = (study.parameters, 1 - test["mean"])
            axes.annotate(label, place, (6, 0), textcoords="offset points", va="center", fontsize=8)
        if study.reference:
            axes.plot(study.parameters, 1 - study.reference.accuracy, "D", mfc="none", mec=colour)
    for other in OTHERS:
        axes.plot(other.parameters, 1 - other.accuracy, "D", mfc="none", mec="grey")
    axes.plot([], [], "ko", label="ours: mean over seeds, with its standard error")
    axes.plot([], [], "kD", mfc="none", label="references: as stated, of one run")
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="test accuracy")
    axes.invert_yaxis()
    axes.set_yticks([1 - mark for mark in MARKS], [f"{mark:.1%}" for mark in MARKS])
    axes.minorticks_off()
    axes.set_xticks(SIZES, [f"{size // 1000}k" for size in SIZES])
    axes.margins(x=0.15, y=0.1)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def curves(study: Found) -> Figure:
    """Draws loss and error rate over the epochs: each seed's, and the mean over all."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for colour, label in (("C0", "train"), ("C1", "validation")):
        losses = [run["curves"][f"{label}_loss"] for run in study["runs"]]
        accuracies = [run["curves"][f"{label}_accuracy"] for run in study["runs"]]
        _seeds_and_mean(loss, np.array(losses), colour, label)
        _seeds_and_mean(error, 100 * (1 - np.array(accuracies)), colour, label)
    loss.set(xlabel="epoch", ylabel="loss (nats)")
    error.set(xlabel="epoch", ylabel="error (%)")
    loss.legend()
    return figure


def confusion(counts: Sequence[Sequence[int]]) -> Figure:
    """Draws how often each digit was taken for which.

    Args:
        counts: [true digit][answer].
    """
    matrix = np.array(counts)
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    shade = np.log1p(matrix)  # right answers outnumber mistakes by hundreds
    axes.imshow(shade, cmap="Blues")
    digits = range(CLASSES)
    axes.set(xlabel="answer", ylabel="true digit", xticks=digits, yticks=digits)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if shade[row, column] > shade.max() / 2 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    return figure


def _seeds_and_mean(axes: Axes, values: NDArray[np.float64], colour: str, label: str) -> None:
    """Draws [seeds, epochs] thinly, and their mean."""
    axes.set_yscale("log")
    epochs = np.arange(1, values.shape[1] + 1)
    axes.plot(epochs, values.T, color=colour, alpha=0.3, linewidth=0.8)
    axes.plot(epochs, values.mean(0), color=colour, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")  # 0.1 rather than 10⁻¹
    axes.yaxis.set_minor_formatter("{x:g}")
