"""The batcher, with a model whose runs the test itself lets through."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from server.arrivals import Arrivals
from server.batcher import Batcher, Work
from server.errors import Cancelled, DeadlineExpired, QueueFull
from server.metrics import ModelMetrics
from server.model import Answers, Floats


class GatedModel:
    """Answers each image with its first pixel, one run per `let_through`; NaN makes a run fail."""

    def __init__(self) -> None:
        self.runs: list[list[float]] = []
        self.started = threading.Semaphore(0)
        self._gate = threading.Semaphore(0)

    def run(self, pixels: Floats) -> Answers:
        """Waits at the gate, then answers."""
        firsts = pixels[:, 0, 0, 0]
        self.runs.append(firsts.tolist())
        self.started.release()
        assert self._gate.acquire(timeout=10)
        if np.isnan(firsts).any():
            raise ValueError("a run that fails")
        logits = np.repeat(firsts[:, None], 10, axis=1)
        return Answers(logits, logits)

    def let_through(self, runs: int = 1) -> None:
        """Opens the gate for so many runs."""
        self._gate.release(runs)


def work(*firsts: float, deadline: float = float("inf")) -> Work:
    """Images that can be told apart by their first pixel."""
    pixels = np.zeros((len(firsts), 1, 28, 28), np.float32)
    pixels[:, 0, 0, 0] = firsts
    return Work(pixels, deadline)


@pytest.fixture
def model() -> GatedModel:
    """A model that runs when told to."""
    return GatedModel()


@pytest.fixture
def metrics() -> ModelMetrics:
    """What the batcher is told to count with."""
    return ModelMetrics("gated")


@pytest.fixture
def arrivals() -> Arrivals:
    """Calls that are on their way."""
    return Arrivals()


@pytest.fixture
def batcher(model: GatedModel, metrics: ModelMetrics, arrivals: Arrivals) -> Batcher:
    """Four images a run, three calls in the queue."""
    return Batcher(model.run, max_batch=4, max_queue=3, metrics=metrics, arrivals=arrivals)


Submit = Callable[[Work], Future[Answers]]


@pytest.fixture
def submit(batcher: Batcher, model: GatedModel) -> Iterator[Submit]:
    """Submits from a thread of its own, and returns once the work waits or runs."""
    with ThreadPoolExecutor(16) as pool:

        def submit(piece: Work) -> Future[Answers]:
            before = piece.state
            future = pool.submit(batcher.submit, piece)
            while piece.state is before and not future.done():
                time.sleep(0)  # yields to the other thread: a state, not a time, is waited for
            return future

        yield submit
        model.let_through(100)


def firsts(future: Future[Answers]) -> list[float]:
    """What came back, by first pixel."""
    return [float(row[0]) for row in future.result(timeout=10).logits]


def test_a_lone_call_runs_at_once(model: GatedModel, submit: Submit) -> None:
    """Nothing is waited for when the model is idle."""
    future = submit(work(0.1, 0.2))
    model.let_through()
    assert firsts(future) == pytest.approx([0.1, 0.2])
    assert len(model.runs) == 1


def test_calls_that_wait_run_together(model: GatedModel, submit: Submit) -> None:
    """What queued up during a run is one run, in order, and each gets its own answers."""
    futures = [submit(work(0.0)), submit(work(0.1)), submit(work(0.2, 0.3)), submit(work(0.4))]
    model.let_through(2)
    assert [firsts(future) for future in futures] == [
        pytest.approx(expected) for expected in ([0.0], [0.1], [0.2, 0.3], [0.4])
    ]
    assert [len(run) for run in model.runs] == [1, 4]


def test_a_call_on_its_way_joins_the_run(
    model: GatedModel, arrivals: Arrivals, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose company is about to be submitted gives it a turn first."""
    arrivals.come()
    futures: list[Future[Answers]] = []

    def turn() -> None:
        arrivals.go()
        futures.append(submit(work(0.2)))

    monkeypatch.setattr("os.sched_yield", turn)
    futures.insert(0, submit(work(0.1)))
    model.let_through()
    assert [firsts(future) for future in futures] == [pytest.approx([0.1]), pytest.approx([0.2])]
    assert [len(run) for run in model.runs] == [2]


def test_no_call_waits_for_one_that_never_comes(
    model: GatedModel, arrivals: Arrivals, submit: Submit
) -> None:
    """The turns that others get are bounded."""
    arrivals.come()
    future = submit(work(0.1))
    model.let_through()
    assert firsts(future) == pytest.approx([0.1])


def test_company_ends_where_it_saves_no_more(
    model: GatedModel, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above so many images a run is one call's alone, whatever `max_batch` allows."""
    monkeypatch.setattr("server.batcher.COMPANY_IMAGES", 2)
    futures = [submit(work(0.0)), submit(work(0.1)), submit(work(0.2, 0.3)), submit(work(0.4))]
    model.let_through(4)
    for future in futures:
        future.result(timeout=10)
    assert [len(run) for run in model.runs] == [1, 1, 2, 1]


def test_a_run_holds_at_most_max_batch_images(model: GatedModel, submit: Submit) -> None:
    """What does not fit waits for the run after."""
    futures = [submit(work(0.0)), submit(work(0.1, 0.2, 0.3)), submit(work(0.4, 0.5))]
    model.let_through(3)
    for future in futures:
        future.result(timeout=10)
    assert [len(run) for run in model.runs] == [1, 3, 2]


def test_a_full_queue_refuses_at_once(model: GatedModel, batcher: Batcher, submit: Submit) -> None:
    """The call after `max_queue` waiting ones is refused, with a time to come back."""
    futures = [submit(work(i / 10)) for i in range(4)]
    with pytest.raises(QueueFull) as caught:
        batcher.submit(work(0.9))
    assert caught.value.retry_after > 0
    model.let_through(4)
    assert [firsts(future) for future in futures] == [pytest.approx([i / 10]) for i in range(4)]


def test_expired_work_is_never_run(model: GatedModel, submit: Submit) -> None:
    """A call whose deadline passes in the queue ends there, and its neighbours do not notice."""
    first = submit(work(0.0))
    expiring = submit(work(0.1, deadline=time.monotonic() + 0.02))
    neighbour = submit(work(0.2))
    with pytest.raises(DeadlineExpired):
        expiring.result(timeout=10)
    model.let_through(2)
    assert firsts(first) == [0.0]
    assert firsts(neighbour) == pytest.approx([0.2])
    assert model.runs == [[0.0], pytest.approx([0.2])]


def test_a_deadline_that_has_passed_is_not_queued(model: GatedModel, batcher: Batcher) -> None:
    """Work that comes too late is refused before it takes anyone's place."""
    with pytest.raises(DeadlineExpired):
        batcher.submit(work(0.1, deadline=time.monotonic()))
    assert model.runs == []


def test_cancelled_work_is_never_run(model: GatedModel, batcher: Batcher, submit: Submit) -> None:
    """A call whose caller goes away while it waits is dropped; its batch-mates are answered."""
    first = submit(work(0.0))
    leaving = work(0.1)
    gone = submit(leaving)
    neighbour = submit(work(0.2))
    batcher.cancel(leaving)
    with pytest.raises(Cancelled):
        gone.result(timeout=10)
    model.let_through(2)
    assert firsts(first) == [0.0]
    assert firsts(neighbour) == pytest.approx([0.2])
    assert model.runs == [[0.0], pytest.approx([0.2])]


def test_cancelling_before_submitting_counts(model: GatedModel, batcher: Batcher) -> None:
    """A caller that is gone before its work is queued costs no run."""
    leaving = work(0.1)
    batcher.cancel(leaving)
    with pytest.raises(Cancelled):
        batcher.submit(leaving)
    assert model.runs == []


def test_cancelling_a_running_call_is_too_late(
    model: GatedModel, batcher: Batcher, submit: Submit
) -> None:
    """Work that runs already is answered, and the model is free for the next."""
    running = work(0.1)
    future = submit(running)
    assert model.started.acquire(timeout=10)
    batcher.cancel(running)
    model.let_through(2)
    assert firsts(future) == pytest.approx([0.1])
    assert batcher.submit(work(0.2)).logits[0, 0] == pytest.approx(0.2)


def test_only_the_guilty_call_fails(model: GatedModel, batcher: Batcher, submit: Submit) -> None:
    """When a shared run fails, each call is run by itself, and the lead goes on."""
    first = submit(work(0.0))
    guilty, innocent = submit(work(float("nan"))), submit(work(0.2))
    model.let_through(100)
    assert firsts(first) == [0.0]
    with pytest.raises(ValueError, match="a run that fails"):
        guilty.result(timeout=10)
    assert firsts(innocent) == pytest.approx([0.2])
    assert batcher.submit(work(0.3)).logits[0, 0] == pytest.approx(0.3)


def test_each_call_is_counted_once(
    model: GatedModel, batcher: Batcher, metrics: ModelMetrics, submit: Submit
) -> None:
    """Answered, failed, expired, cancelled and refused: the sums tell them apart and add up."""
    alone = submit(work(0.0))
    leaving, guilty = work(0.1), submit(work(float("nan")))
    gone, pair = submit(leaving), submit(work(0.2, 0.3))
    with pytest.raises(QueueFull):
        batcher.submit(work(0.4))
    with pytest.raises(DeadlineExpired):
        batcher.submit(work(0.5, deadline=time.monotonic()))
    batcher.cancel(leaving)
    model.let_through(100)
    for future in (alone, pair, gone, guilty):
        future.exception(timeout=10)
    found = metrics.statistics()
    assert (found.images, found.queue.count, found.compute.count, found.fail.count) == (3, 2, 2, 4)
    assert {images: runs.count for images, runs in found.batches.items()} == {1: 1, 2: 1}
    assert found.compute.ns == sum(runs.ns for runs in found.batches.values())
    assert time.time() - 60 < found.last_run_ended <= time.time()


def test_nothing_is_lost_in_a_crowd(model: GatedModel, metrics: ModelMetrics) -> None:
    """Of many threads with many calls, some cancelled, some expiring, each gets its own answer."""
    model.let_through(100_000)
    batcher = Batcher(model.run, 8, 1_000, metrics, Arrivals())

    def call(number: int) -> None:
        value = number / 2000
        piece = work(value, deadline=time.monotonic() + (0.0001 if number % 7 == 0 else 60))
        canceller = threading.Thread(target=batcher.cancel, args=[piece])
        if number % 5 == 0:
            canceller.start()
        try:
            assert batcher.submit(piece).logits[0, 0] == np.float32(value)
        except DeadlineExpired:
            assert number % 7 == 0
        except Cancelled:
            assert number % 5 == 0
        finally:
            if number % 5 == 0:
                canceller.join()

    with ThreadPoolExecutor(32) as pool:
        for future in [pool.submit(call, number) for number in range(2000)]:
            future.result(timeout=60)
    assert all(len(run) <= 8 for run in model.runs)
    found = metrics.statistics()
    assert found.images == found.compute.count
    assert found.compute.count + found.fail.count == 2000
    assert sum(images * runs.count for images, runs in found.batches.items()) == found.images
