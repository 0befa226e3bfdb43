"""The threads that calls are answered on.

Python's own pool makes a future for each call and wakes the thread that has been
idle longest; this one makes none and wakes the one whose stack is still in the
CPU's caches. Measured by `make bench`, that carries a fifth more calls a second.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

log = structlog.get_logger()


def prefer_throughput() -> None:
    """Lets this process's threads finish what they are at before one that wakes takes over.

    To be called before there are others, which inherit it. By default Linux lets a
    thread that wakes interrupt the one that woke it, which still holds the
    interpreter's lock that the other needs. The price is paid where other processes
    keep all CPUs busy: there a call waits for the scheduler's next tick. See sched(7).
    """
    with suppress(AttributeError, OSError):  # only Linux has it, and a sandbox may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Task:
    """A call in a thread's hands: as much of a future as gRPC asks for."""

    __slots__ = ("_callback", "_done", "_mutex", "call")

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self._mutex = threading.Lock()
        self._done = False
        self._callback: Callable[[Task], object] | None = None

    def add_done_callback(self, callback: Callable[[Task], object]) -> None:
        """Has it called when the call has ended, or now if it has already."""
        with self._mutex:
            if not self._done:
                self._callback = callback
                return
        callback(self)

    def end(self) -> None:
        """Says that the call has ended."""
        with self._mutex:
            self._done = True
        if self._callback is not None:
            self._callback(self)


class Pool:
    """A thread for each call under way, taken from those that idle; the last one to idle first.

    It has no bound of its own: gRPC's `maximum_concurrent_rpcs` is it. Where the system
    lets it have no more threads, calls wait until one is free.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._idle: list[_Thread] = []
        self._waiting: deque[Task] = deque()

    def submit(self, function: Callable[..., object], /, *arguments: Any) -> Task:
        """Calls the function in a thread of the pool."""
        task = Task(partial(function, *arguments))
        with self._mutex:
            thread = self._idle.pop() if self._idle else None
            if thread is None:
                self._waiting.append(task)
        if thread:
            thread.give(task)
        else:
            # It takes what waits; where it cannot be had, one that is there does, in time.
            with suppress(RuntimeError):
                _Thread(self).start()
        return task

    def next(self, thread: _Thread) -> Task | None:
        """Returns a call that waits; None where none does, and the thread idles from now on."""
        with self._mutex:
            if self._waiting:
                return self._waiting.popleft()
            self._idle.append(thread)
            return None


class _Thread(threading.Thread):
    def __init__(self, pool: Pool) -> None:
        super().__init__(name="call", daemon=True)
        self._pool = pool
        self._task: Task | None = None
        self._given = threading.Lock()
        self._given.acquire()

    def give(self, task: Task) -> None:
        """Wakes the thread, which idles, for a call."""
        self._task = task
        self._given.release()

    def run(self) -> None:
        task = self._pool.next(self)
        while True:
            if task is None:
                self._given.acquire()
                task, self._task = self._task, None
                assert task is not None  # noqa: S101 - given with the lock; tells mypy
            try:
                task.call()
            except Exception:  # gRPC foresees them all; if not, the thread lives on
                log.exception("a call ended in a way that nobody foresaw")
            ended, task = task, self._pool.next(self)
            ended.end()
            del ended  # and all that it refers to, while this thread idles
