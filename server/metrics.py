"""What Prometheus sees.

With several workers each one writes to files below PROMETHEUS_MULTIPROC_DIR,
which prometheus_client looks for when it is imported, and the supervisor exports
their sum.
"""

from prometheus_client import Counter, Gauge, Histogram

from server.model import Metadata

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


class ModelMetrics:
    """The metrics of one model's batcher, with the labels looked up once.

    Args:
        model: its name.
    """

    def __init__(self, model: str) -> None:
        self.queue_seconds = _queue_seconds.labels(model)
        self.queue_depth = _queue_depth.labels(model)
        self.run_seconds = _run_seconds.labels(model)
        self.run_images = _run_images.labels(model)
        self.queue_full = _dropped.labels(model, "queue_full")
        self.expired = _dropped.labels(model, "expired")
        self.cancelled = _dropped.labels(model, "cancelled")


def answers(model: str, version: int, metadata: Metadata, *, ready: bool) -> None:
    """Says whether a version answers requests."""
    _model_info.labels(
        model,
        version,
        metadata.dataset,
        metadata.test_accuracy,
        metadata.parity_max_abs_logit_diff,
    ).set(ready)
