"""What `robustness.measure` found, drawn."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure


def plot_distortions(found: Mapping[str, dict[str, Any]]) -> Figure:
    """Draws accuracy over strength for each distortion, the undistorted images among them.

    Args:
        found: by the model's name, each a line.
    """
    figure = Figure(figsize=(10, 9), layout="constrained")
    grid = figure.subplots(3, 3, sharey=True).ravel()
    for name, one in found.items():
        for axes, (way, row) in zip(grid, one["distortions"].items(), strict=True):
            clean = (row["none"], one["clean_accuracy"])
            points = [*zip(row["strengths"], row["accuracy"], strict=True), clean]
            strengths, accuracies = zip(*sorted(points), strict=True)
            label = f"{name}: {one['mean_accuracy']:.1%}"
            axes.plot(strengths, [100 * a for a in accuracies], marker=".", label=label)
            axes.axvline(row["none"], color="grey", linestyle=":", linewidth=0.5)
            axes.set(xlabel=row["unit"], title=way, ylim=(0, 102))
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.supylabel("accuracy (%)")
    return figure


def plot_reliability(name: str, found: dict[str, Any]) -> Figure:
    """Draws accuracy over confidence, bin by bin, and how many answers each bin holds."""
    calibration = found["calibration"]
    bins = calibration["bins"]
    confidences = [part["confidence"] for part in bins]
    chance = [
        2 * (c * (1 - c) / part["count"]) ** 0.5 for c, part in zip(confidences, bins, strict=True)
    ]
    figure = Figure(figsize=(5, 6), layout="constrained")
    error = calibration["expected_calibration_error"]
    figure.suptitle(f"{name}: expected calibration error {error:.2%}")
    reliability, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    reliability.plot([0, 1], [0, 1], color="grey", linestyle=":")
    reliability.errorbar(
        confidences,
        confidences,
        chance,
        fmt="none",
        color="grey",
        label="honest ± 2 standard errors",
    )
    reliability.plot(confidences, [part["accuracy"] for part in bins], "o", label=name)
    reliability.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    reliability.legend()
    counts.bar(confidences, [part["count"] for part in bins], width=0.04)
    counts.set(xlabel="confidence", ylabel="answers", yscale="log")
    return figure
