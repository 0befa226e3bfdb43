"""The pool that calls are answered on, and how its threads are scheduled."""

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from server.threads import Pool


@pytest.fixture
def pool() -> Pool:
    """A pool without threads."""
    return Pool()


def run(pool: Pool, function: Callable[[], object]) -> threading.Event:
    """Submits the function and returns what is set when it has ended."""
    ended = threading.Event()
    pool.submit(function).add_done_callback(lambda _: ended.set())
    return ended


def test_each_call_under_way_has_a_thread(pool: Pool) -> None:
    """Calls that wait for each other all get on."""
    barrier = threading.Barrier(9)
    for _ in range(8):
        pool.submit(barrier.wait, 10)
    barrier.wait(10)


def test_the_last_thread_to_idle_is_the_first_to_work(pool: Pool) -> None:
    """So that its stack is still in the caches."""
    names: dict[str, int] = {}
    gates = {name: threading.Event() for name in ("early", "late")}

    def call(name: str) -> None:
        names[name] = threading.get_ident()
        assert gates[name].wait(10)

    ended = {name: run(pool, partial(call, name)) for name in gates}
    for name, gate in gates.items():
        gate.set()
        assert ended[name].wait(10)
    found: list[int] = []
    assert run(pool, lambda: found.append(threading.get_ident())).wait(10)
    assert names["early"] != names["late"]
    assert found == [names["late"]]


def test_calls_wait_where_there_are_no_more_threads(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system refuses a thread is taken by one that is there, and none is lost."""
    gate = threading.Event()
    first = run(pool, lambda: gate.wait(10))

    def refuse(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    others = [run(pool, lambda: None) for _ in range(8)]
    gate.set()
    assert all(ended.wait(10) for ended in [first, *others])


def test_a_call_that_has_ended_already_is_known_to_have(pool: Pool) -> None:
    """Who asks late is told at once."""
    task = pool.submit(lambda: None)
    ended = threading.Event()
    task.add_done_callback(lambda _: ended.set())
    assert ended.wait(10)
    told: list[object] = []
    task.add_done_callback(told.append)
    assert told == [task]


def test_a_thread_outlives_a_call_that_fails(
    pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The failure is logged, the call has ended, and the thread takes the next one."""
    assert run(pool, lambda: 1 / 0).wait(10)
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert run(pool, lambda: None).wait(10)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux schedules so")
def test_a_server_prefers_throughput(server: Any) -> None:
    """Every thread of it is scheduled as SCHED_BATCH."""
    threads = [int(task.name) for task in Path(f"/proc/{server.pid}/task").iterdir()]
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}
