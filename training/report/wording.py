"""How the report's pages word a figure: the filters of its templates."""

from collections.abc import Callable, Sequence

from training.experiments.evidence import Found

UNKNOWN = "not measured"


def percent(fraction: float) -> str:
    """Words a fraction: "99.60 %"."""
    return f"{100 * fraction:.2f} %"


def thousands(count: int) -> str:
    """Words a count: "19,610"."""
    return f"{count:,}"


def accuracy(spread: Found) -> str:
    """Words an accuracy over several seeds: "99.60 ± 0.04 % (5)"; a single run has no spread."""
    return f"{_mean_and_deviation(spread, scale=100)} % ({spread['n']})"


def points(spread: Found) -> str:
    """Words a difference between accuracies: "-0.02 ± 0.05 points (3)"."""
    return f"{_mean_and_deviation(spread, scale=100)} points ({spread['n']})"


def time(spread: Found) -> str:
    """Words how long runs took: "1.20 ± 0.04 s (5)"."""
    return f"{_mean_and_deviation(spread, scale=1)} s ({spread['n']})"


def mean(study: Found | None) -> str:
    """Words a study's test accuracy as `accuracy`, with the data set where it is not MNIST."""
    if study is None:
        return UNKNOWN
    elsewhere = "" if study["dataset"] == "mnist" else f" on {study['dataset']}"
    return accuracy(study["test_accuracy"]) + elsewhere


def standard_error(study: Found | None) -> str:
    """Words the standard error of a study's mean: "0.018 points"; a single run has none."""
    error = study["test_accuracy"]["standard_error"] if study else None
    return UNKNOWN if error is None else f"{100 * error:.3f} points"


def seconds(study: Found | None) -> str:
    """Words how long a study's runs took on average: "585"."""
    if study is None:
        return UNKNOWN
    runs = study["runs"]
    return f"{sum(run['seconds'] for run in runs) / len(runs):,.0f}"


def one_image(examined: Found | None) -> str:
    """Words how long one image takes: "37 µs"."""
    return UNKNOWN if examined is None else f"{examined['latency']['p50_us']['median']:.0f} µs"


def images_per_second(examined: Found | None) -> str:
    """Words how many images are answered in batches: "72,750"."""
    return (
        UNKNOWN
        if examined is None
        else f"{examined['latency']['images_per_second']['median']:,.0f}"
    )


def difference(logits: str) -> str:
    """Words a difference between logits, as a file's metadata has it: "1.9e-06"."""
    return f"{float(logits):.1e}"


def mistaken(counts: Sequence[int], digit: int) -> str:
    """Words what a digit was taken for, most often first: "9 (3), 7".

    Args:
        counts: how often it was taken for which.
        digit: the true one.
    """
    taken = [(-count, answer) for answer, count in enumerate(counts) if count and answer != digit]
    return ", ".join(
        f"{answer} ({-count})" if count < -1 else f"{answer}" for count, answer in sorted(taken)
    )


FILTERS: dict[str, Callable[..., str]] = {
    words.__name__: words
    for words in (
        percent,
        thousands,
        accuracy,
        points,
        time,
        mean,
        standard_error,
        seconds,
        one_image,
        images_per_second,
        difference,
        mistaken,
    )
}


def _mean_and_deviation(spread: Found, scale: int) -> str:
    """Words a spread, as `results.spread` has it, times `scale`."""
    deviation = spread["standard_deviation"]
    more = "" if deviation is None else f" ± {scale * deviation:.2f}"
    return f"{scale * spread['mean']:.2f}{more}"
