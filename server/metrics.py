"""What Prometheus sees.

With several workers each one writes to files below PROMETHEUS_MULTIPROC_DIR,
which prometheus_client looks for when it is imported, and the supervisor exports
their sum.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from server.calls import Call
from server.model import Metadata
from server.statistics import Statistics

# Observations are noted and counted in bulk: in the middle of a call each would take ten
# times as long as in a row with others, whose code and data are in the CPU's caches.
AT_ONCE = 64

_noted: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
_counting = threading.Lock()


def later(count: Callable[..., None], *arguments: Any) -> None:
    """Has `count(*arguments)` called soon: with others, before a scrape, or within a second."""
    _noted.append((count, arguments))
    if len(_noted) >= AT_ONCE and not _counting.locked():
        settle()


def settle() -> None:
    """Counts what has been noted until now."""
    with _counting:
        in_flight.set(len(under_way))
        while _noted:
            count, arguments = _noted.popleft()
            count(*arguments)


class _Settle(Collector):
    """Registered first, so that a scrape sees what was noted before it."""

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        settle()
        return ()


REGISTRY.register(_Settle())

# In seconds, from 50 µs to 10 s.
LATENCY_BUCKETS = (
    *(50e-6, 100e-6, 200e-6, 500e-6),
    *(1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
IMAGE_BUCKETS = tuple(2**power for power in range(13))  # to 4,096, the largest --max-batch

requests = Counter("mnist_requests", "Calls ended, by status code.", ["method", "model", "code"])
request_seconds = Histogram(
    "mnist_request_seconds",
    "What answering a call took; a stream counts from its start to its end.",
    ["method"],
    buckets=LATENCY_BUCKETS,
)
in_flight = Gauge("mnist_in_flight", "Calls being answered.", multiprocess_mode="livesum")
under_way: set[Call] = set()
model_loads = Counter("mnist_model_loads", "Versions loaded or refused.", ["model", "outcome"])
_model_info = Gauge(
    "mnist_model_info",
    "1 for each version that answers, 0 for one that no longer does.",
    ["model", "version", "dataset", "test_accuracy", "parity_max_abs_logit_diff"],
    multiprocess_mode="livemax",
)

_queue_seconds = Histogram(
    "mnist_queue_seconds", "What work waited for its run.", ["model"], buckets=LATENCY_BUCKETS
)
_queue_depth = Gauge(
    "mnist_queue_depth", "Calls that wait for a run.", ["model"], multiprocess_mode="livesum"
)
_run_seconds = Histogram(
    "mnist_run_seconds", "What a run of the network took.", ["model"], buckets=LATENCY_BUCKETS
)
_run_images = Histogram("mnist_run_images", "Images in a run.", ["model"], buckets=IMAGE_BUCKETS)
_dropped = Counter(
    "mnist_dropped",
    "Calls that were never run, by reason: queue_full, expired or cancelled.",
    ["model", "reason"],
)


def ended(call: Call) -> None:
    """Counts a call that has ended."""
    seconds, count = _of(call.method, call.model, call.code)
    seconds.observe(call.seconds)
    count.inc()


@cache
def _of(method: str, model: str, code: str) -> tuple[Histogram, Counter]:
    return request_seconds.labels(method), requests.labels(method, model, code)


class ModelMetrics:
    """What becomes of one version's work, for Prometheus and for `Statistics` alike.

    Args:
        model: the model's name; Prometheus sees the sum over its versions.
    """

    def __init__(self, model: str) -> None:
        self._queue_seconds = _queue_seconds.labels(model)
        self._queue_depth = _queue_depth.labels(model)
        self._run_seconds = _run_seconds.labels(model)
        self._run_images = _run_images.labels(model)
        self._dropped = {
            reason: _dropped.labels(model, reason)
            for reason in ("queue_full", "expired", "cancelled")
        }
        self._statistics = Statistics()

    def waiting(self, calls: int) -> None:
        """Says how many calls wait for a run now."""
        later(self._queue_depth.set, calls)

    def ran(self, images: int, waits: Sequence[float], seconds: float) -> None:
        """Counts a run of so many images, for calls that had waited so many seconds each."""
        later(self._ran, images, waits, seconds, time.time())

    def dropped(self, reason: str, seconds: float) -> None:
        """Counts a call that is never run, and what it waited."""
        later(self._dropped[reason].inc)
        self.failed(seconds)

    def failed(self, seconds: float) -> None:
        """Counts a call that is not answered, and what passed until that was known."""
        later(self._statistics.fail.add, seconds)

    def statistics(self) -> Statistics:
        """Returns a copy of the sums."""
        settle()
        with _counting:
            return deepcopy(self._statistics)

    def _ran(self, images: int, waits: Sequence[float], seconds: float, ended: float) -> None:
        self._run_seconds.observe(seconds)
        self._run_images.observe(images)
        for wait in waits:
            self._queue_seconds.observe(wait)
        self._statistics.ran(images, waits, seconds, ended)


def answers(model: str, version: int, metadata: Metadata, *, ready: bool) -> None:
    """Says whether a version answers requests."""
    _model_info.labels(
        model,
        version,
        metadata.dataset,
        metadata.test_accuracy,
        metadata.parity_max_abs_logit_diff,
    ).set(ready)
