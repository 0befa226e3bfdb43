"""What the protocols share: the way to an answer, the range of pixels, the bound on streams."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import grpc
import numpy as np

from server import calls
from server.batcher import Work
from server.errors import Cancelled, InvalidInput, QueueFull
from server.model import IMAGE_SHAPE, Answers, Floats
from server.repository import Repository, Served

# Open streams of all protocols: each holds a thread for as long as it is open.
MAX_STREAMS = 64
STREAM_RETRY_AFTER = 1.0  # seconds: streams last longer than calls

# 1.0, bit for bit. Read as integers, the floats from 0 to 1 are the smallest of all; those
# above, negative ones, infinities and NaNs are greater: one look tells what else takes two.
ONE = np.float32(1).view(np.uint32)


class Core:
    """The way to the models.

    Args:
        repository: the models that answer.
    """

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._free_streams = threading.BoundedSemaphore(MAX_STREAMS)

    def answer(
        self,
        name: str,
        version: int,
        pixels: Floats,
        context: grpc.ServicerContext,
        timeout: float = math.inf,
    ) -> tuple[Served, Answers]:
        """Answers images, and takes down what it took for the call's log line, metrics and trace.

        Args:
            name: of the model; empty for the default.
            version: 0 for the newest that is ready.
            pixels: float32 [n, 1, 28, 28] in [0, 1], with n from 1 to `max_batch`.
            context: its deadline and its end are obeyed while the work waits.
            timeout: the most seconds that the work may wait, where that ends before the deadline.

        Raises:
            ServingError: see `Repository.get` and `Batcher.submit`.
        """
        served = self.repository.get(name, version)
        call = calls.current.get()
        call.model, call.version = served.name, served.version
        call.images += len(pixels)
        work = Work(pixels, time.monotonic() + min(context.time_remaining(), timeout))
        if not context.add_callback(partial(served.batcher.cancel, work)):
            raise Cancelled("The caller went away before its call was queued.")
        answers = served.batcher.submit(work)
        call.queue_seconds += work.queue_seconds
        call.run_seconds += work.run_seconds
        if call.trace:
            call.trace.answered(work)
        return served, answers

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Holds one of the places for streams.

        Raises:
            QueueFull: all are taken.
        """
        if not self._free_streams.acquire(blocking=False):
            raise QueueFull(
                f"All {MAX_STREAMS} streams are taken: try again later, or make single calls.",
                STREAM_RETRY_AFTER,
            )
        try:
            yield
        finally:
            self._free_streams.release()


def in_range(values: Floats, field: str) -> Floats:
    """Returns the images as the model takes them, if all their values are finite and in [0, 1].

    Args:
        values: float32 [n × 784].
        field: the request's field that they came in.

    Raises:
        InvalidInput: they are not; says which, and what to do.
    """
    if np.maximum.reduce(values.view(np.uint32)) <= ONE:
        return values.reshape(-1, *IMAGE_SHAPE)
    low, high = values.min(), values.max()
    if low >= 0 and high <= 1:  # there is a -0.0
        return values.reshape(-1, *IMAGE_SHAPE)
    wrong = int(np.argmax(~((values >= 0) & (values <= 1))))
    advice = "send finite values from 0 (background) to 1 (ink)"
    if low >= 0 and 1 < high <= np.iinfo(np.uint8).max:
        advice = "values look like bytes from 0 to 255: divide by 255"
    raise InvalidInput(field, f"pixels[{wrong}] is {values[wrong]:g}, out of [0, 1]: {advice}.")
