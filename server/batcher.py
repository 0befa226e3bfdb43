"""Batching without a timer.

Whoever finds the model idle runs. Whoever finds it busy queues up, and when the
run ends everything that queued up meanwhile is run together. Before a run, calls
whose message is here already get a turn to join it. So a lone call never waits
for company, and a crowd is batched by itself.

There is no thread of its own: the first of those who wait leads the next run,
and the others sleep until their answer is there. Work whose deadline has passed
or whose caller has gone is dropped before it is run.
"""

import enum
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from server.arrivals import Arrivals
from server.errors import Cancelled, DeadlineExpired, QueueFull
from server.metrics import ModelMetrics
from server.model import Answers, Floats

# What a refused caller is told to wait, in seconds: about a full queue's time.
RETRY_AFTER = 0.05

# A run takes on company up to so many images: in larger runs onnxruntime takes no less
# time for an image, and callers wait longer.
COMPANY_IMAGES = 32

# How many turns calls that are on their way get, at most, to join a run. Each is over in
# microseconds, and bounded, so that no call waits for one that never comes.
TURNS = 16


class _State(enum.Enum):
    """Where a piece of work is; it leaves NEW and QUEUED only under the batcher's mutex."""

    NEW = enum.auto()
    QUEUED = enum.auto()
    LEADING = enum.auto()  # its own thread runs the next batch
    TAKEN = enum.auto()  # the leader's thread runs it
    DONE = enum.auto()  # answered, failed or dropped


class Work:
    """One call's images on their way through the queue.

    Args:
        pixels: float32 [n, 1, 28, 28] in [0, 1]; n is at most the batcher's `max_batch`.
        deadline: on the clock of `time.monotonic`, in seconds.

    Once it has run, `queue_seconds` and `run_seconds` say what it waited and
    what its run took.
    """

    __slots__ = (
        "answers",
        "awake",
        "created",
        "deadline",
        "error",
        "pixels",
        "queue_seconds",
        "run_seconds",
        "state",
    )

    def __init__(self, pixels: Floats, deadline: float = math.inf) -> None:
        self.pixels = pixels
        self.deadline = deadline
        self.created = time.perf_counter()
        self.queue_seconds = 0.0
        self.run_seconds = 0.0
        self.answers: Answers | None = None
        self.error: Exception | None = None
        self.state = _State.NEW
        # Held until someone wakes the waiting thread; the cheapest thing to sleep on.
        self.awake = threading.Lock()
        self.awake.acquire()

    def has_expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline <= time.monotonic()

    def age(self) -> float:
        """Returns the seconds since it was made."""
        return time.perf_counter() - self.created

    def drop(self, error: Exception) -> None:
        """Ends the work without running it."""
        self.error = error
        self.state = _State.DONE


class Batcher:
    """The one door to a model's `run`.

    Args:
        run: answers float32 [n, 1, 28, 28]; called by one thread at a time.
        max_batch: the most images in one run.
        max_queue: the most calls that may wait for a run.
        metrics: told once of what becomes of each call.
        arrivals: calls that are on their way, to this model or another.
    """

    def __init__(
        self,
        run: Callable[[Floats], Answers],
        max_batch: int,
        max_queue: int,
        metrics: ModelMetrics,
        arrivals: Arrivals,
    ) -> None:
        self._run = run
        self._metrics = metrics
        self._arrivals = arrivals
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._mutex = threading.Lock()
        self._busy = False
        self._queue: deque[Work] = deque()

    def submit(self, work: Work) -> Answers:
        """Runs the work, alone or in company, and returns its answers.

        Raises:
            QueueFull: `max_queue` calls wait already.
            DeadlineExpired: the deadline passed before the work's turn came.
            Cancelled: `cancel` was called before the work's turn came.
        """
        with self._mutex:
            if work.state is _State.NEW:
                self._admit(work)
        if work.state is _State.QUEUED:
            self._wait(work)
        if work.state is _State.LEADING:
            self._lead(work)
        if work.error is not None:
            raise work.error
        assert work.answers is not None  # noqa: S101 - DONE is one or the other; tells mypy
        return work.answers

    def cancel(self, work: Work) -> None:
        """Drops the work unless its turn has come: for when its caller goes away."""
        with self._mutex:
            if work.state is _State.QUEUED:
                self._queue.remove(work)
                work.awake.release()
            elif work.state is not _State.NEW:
                return
            work.drop(Cancelled("The caller went away while the call was queued."))
            self._metrics.dropped("cancelled", work.age())

    def _admit(self, work: Work) -> None:
        if work.has_expired():
            self._expire(work)
        elif not self._busy:
            self._busy = True
            work.state = _State.LEADING
        elif len(self._queue) < self._max_queue:
            work.state = _State.QUEUED
            self._queue.append(work)
            self._metrics.waiting(len(self._queue))
        else:
            self._metrics.dropped("queue_full", work.age())
            raise QueueFull(
                f"All {self._max_queue} places in the queue are taken: try again later.",
                RETRY_AFTER,
            )

    def _wait(self, work: Work) -> None:
        """Sleeps until the work leads, is answered or is dropped."""
        remaining = max(0.0, work.deadline - time.monotonic())
        if work.awake.acquire(timeout=min(remaining, threading.TIMEOUT_MAX)):
            return
        with self._mutex:
            if work.state is _State.QUEUED:
                self._queue.remove(work)
                self._expire(work)
        if work.state is _State.TAKEN:  # too late to drop it, and its answer is near
            work.awake.acquire()

    def _lead(self, work: Work) -> None:
        """Runs the work and all that may join it, then hands the lead over."""
        self._let_others_come()
        batch = [work]
        if self._queue:
            with self._mutex:
                self._take_company(batch)
        self._answer(batch)
        with self._mutex:
            self._hand_over()
            self._metrics.waiting(len(self._queue))
        for other in batch:
            other.state = _State.DONE
            if other is not work:
                other.awake.release()

    def _let_others_come(self) -> None:
        turns = 0
        while self._arrivals.count and turns < TURNS and len(self._queue) < COMPANY_IMAGES:
            os.sched_yield()  # gives the interpreter away too
            turns += 1

    def _take_company(self, batch: list[Work]) -> None:
        images = len(batch[0].pixels)
        most = min(self._max_batch, COMPANY_IMAGES)
        while self._queue and images + len(self._queue[0].pixels) <= most:
            work = self._queue.popleft()
            if work.has_expired():
                self._expire(work)
                work.awake.release()
            else:
                work.state = _State.TAKEN
                images += len(work.pixels)
                batch.append(work)

    def _answer(self, batch: list[Work]) -> None:
        alone = len(batch) == 1
        pixels = batch[0].pixels if alone else np.concatenate([work.pixels for work in batch])
        started = time.perf_counter()
        try:
            answers = self._run(pixels)
        except Exception as error:  # noqa: BLE001 - whatever it is, its caller gets it
            if alone:
                batch[0].error = error
                self._metrics.failed(batch[0].age())
            else:  # one by one, so that only the guilty one fails
                for work in batch:
                    self._answer([work])
            return
        seconds = time.perf_counter() - started
        start = 0
        for work in batch:
            rows = slice(start, start + len(work.pixels))
            start = rows.stop
            work.answers = Answers(answers.logits[rows], answers.probabilities[rows])
            work.queue_seconds, work.run_seconds = started - work.created, seconds
        self._metrics.ran(len(pixels), [work.queue_seconds for work in batch], seconds)

    def _hand_over(self) -> None:
        while self._queue:
            heir = self._queue.popleft()
            if not heir.has_expired():
                heir.state = _State.LEADING
                heir.awake.release()
                return
            self._expire(heir)
            heir.awake.release()
        self._busy = False

    def _expire(self, work: Work) -> None:
        work.drop(DeadlineExpired("The deadline passed while the call was queued."))
        self._metrics.dropped("expired", work.age())
