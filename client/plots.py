"""Draws what an evaluation found."""

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure, SubFigure

from client.evaluation import DIGITS, Evaluation

# As many mistakes as can still be told apart.
MOST_MISTAKES = 100
COLUMNS = 10


def draw(evaluation: Evaluation, file: Path) -> None:
    """Draws the confusion matrix beside the mistaken digits with their true and given labels.

    Args:
        evaluation: What to draw.
        file: Where to; its suffix says in which format. Written whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(14, 7), layout="constrained")
        halves = figure.add_gridspec(1, 2)
        _confusion(figure.add_subfigure(halves[0]), evaluation)
        _mistakes(figure.add_subfigure(halves[1]), evaluation)
        picture = io.BytesIO()
        figure.savefig(picture, format=file.suffix.removeprefix("."), dpi=150)
    file.write_bytes(picture.getvalue())


def _confusion(figure: SubFigure, evaluation: Evaluation) -> None:
    counts = evaluation.confusion
    axes = figure.subplots()
    # Right answers outnumber mistakes by hundreds: the logarithm shows both.
    axes.imshow(np.log1p(counts), cmap="Blues")
    axes.set(
        title=f"{evaluation.correct:,} of {len(evaluation.answers):,} right "
        f"({evaluation.accuracy:.2%})",
        xlabel="answer",
        ylabel="true digit",
        xticks=range(DIGITS),
        yticks=range(DIGITS),
    )
    dark = np.log1p(counts) > np.log1p(counts).max() / 2
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if dark[row, column] else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour)


def _mistakes(figure: SubFigure, evaluation: Evaluation) -> None:
    shown = evaluation.mistakes[:MOST_MISTAKES]
    missing = len(evaluation.mistakes) - len(shown)
    first = f", the first {len(shown)}" if missing else ""
    figure.suptitle(f"{len(evaluation.mistakes)} mistakes{first}: true digit → answer")
    if not len(shown):
        return
    rows = max(4, -(-len(shown) // COLUMNS))
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, index in zip(grid.flat, shown.tolist(), strict=False):
        axes.imshow(evaluation.dataset.images[index], cmap="gray_r")
        label, answer = evaluation.dataset.labels[index], evaluation.answers[index]
        axes.set_title(f"{label} → {answer}", fontsize=8)
