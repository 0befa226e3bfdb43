"""Sends a whole data set to a server and counts what comes back right."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client import ClientError, DigitClient, Prediction
from client.mnist import Dataset

MODES = ("unary", "batch", "stream")
DIGITS = 10

Images = npt.NDArray[np.uint8]
Answer = tuple[list[Prediction], float]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What a server answered to a data set.

    Attributes:
        dataset: The data set.
        answers: int64 [n], the digit that was seen in each image.
        latencies: float64, seconds from sending to answer: one per image, or one
            per call where images were sent in batches.
        seconds: How long everything took.
        answered_by: Names and versions of the models that answered: one, unless
            models were exchanged meanwhile.
    """

    dataset: Dataset
    answers: npt.NDArray[np.int64]
    latencies: npt.NDArray[np.float64]
    seconds: float
    answered_by: frozenset[tuple[str, int]]

    @property
    def correct(self) -> int:
        """How many images were recognised."""
        return int((self.answers == self.dataset.labels).sum())

    @property
    def accuracy(self) -> float:
        """The fraction of images that were recognised, 0 to 1."""
        return self.correct / len(self.answers)

    @property
    def mistakes(self) -> npt.NDArray[np.intp]:
        """The indices of the images that were not."""
        return np.flatnonzero(self.answers != self.dataset.labels)

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """How often each digit was taken for which: int64 [true digit, answer]."""
        counts = np.zeros((DIGITS, DIGITS), np.int64)
        np.add.at(counts, (self.dataset.labels, self.answers), 1)
        return counts

    @property
    def images_per_second(self) -> float:
        """How many images were answered each second."""
        return len(self.answers) / self.seconds

    def percentile(self, percent: float) -> float:
        """Returns the latency in seconds that `percent` of all were below."""
        return float(np.percentile(self.latencies, percent))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to send a data set.

    Attributes:
        mode: One of `MODES`.
        concurrency: How many calls, or streams, at a time.
        batch_size: Images in a batch, or under way at a time in a stream.
        model: Name of the model; empty for the server's default.
        version: Version of the model; 0 for the newest.
    """

    mode: str
    concurrency: int
    batch_size: int
    model: str
    version: int


def evaluate(
    client: DigitClient, dataset: Dataset, plan: Plan, progress: Callable[[int], object]
) -> Evaluation:
    """Sends all test images to a server.

    Args:
        client: The client of the server.
        dataset: What to send.
        plan: How to send it.
        progress: Told how many images have been answered since it was told last.

    Raises:
        ClientError: One of the calls failed, whatever had been answered before.
    """
    share = {
        "unary": 1,
        "batch": plan.batch_size,
        "stream": -(-len(dataset.images) // plan.concurrency),
    }[plan.mode]
    send = {"unary": _unary, "batch": _batch, "stream": _stream}[plan.mode]
    parts = [dataset.images[i : i + share] for i in range(0, len(dataset.images), share)]
    stop = threading.Event()

    def run(part: Images) -> list[Answer]:
        answers: list[Answer] = []
        try:
            if not stop.is_set():
                for answer in send(client, part, plan):
                    answers.append(answer)
                    progress(len(answer[0]))
        except BaseException:
            stop.set()  # what is not under way yet need not start
            raise
        return answers

    start = time.perf_counter()
    pool = ThreadPoolExecutor(plan.concurrency)
    try:
        answers = [answer for part in pool.map(run, parts) for answer in part]
    finally:
        stop.set()
        pool.shutdown(wait=False)  # calls under way end with the client
    seconds = time.perf_counter() - start
    predictions = [prediction for several, _ in answers for prediction in several]
    return Evaluation(
        dataset=dataset,
        answers=np.array([prediction.digit for prediction in predictions]),
        latencies=np.array([latency for _, latency in answers]),
        seconds=seconds,
        answered_by=frozenset((one.model, one.model_version) for one in predictions),
    )


def _unary(client: DigitClient, part: Images, plan: Plan) -> Iterator[Answer]:
    start = time.perf_counter()
    prediction = client.predict(part[0], model=plan.model, version=plan.version)
    yield [prediction], time.perf_counter() - start


def _batch(client: DigitClient, part: Images, plan: Plan) -> Iterator[Answer]:
    start = time.perf_counter()
    predictions = client.predict_batch(part, model=plan.model, version=plan.version)
    yield predictions, time.perf_counter() - start


def _stream(client: DigitClient, part: Images, plan: Plan) -> Iterator[Answer]:
    # Without a bound, the last image would wait for all before it.
    window = threading.Semaphore(plan.batch_size)
    sent: list[float] = []

    def images() -> Iterator[Images]:
        for image in part:
            window.acquire()
            sent.append(time.perf_counter())
            yield image

    outcomes = client.predict_stream(images(), model=plan.model, version=plan.version)
    try:
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, ClientError):
                raise outcome
            yield [outcome], time.perf_counter() - sent[index]
            window.release()
    finally:
        window.release(len(part))  # whoever still waits to send need not
