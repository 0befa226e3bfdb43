"""What is known of the call that is being answered, for its log line, metrics and trace."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where traces are wanted only
    from server.tracing import Trace


@dataclass(slots=True)
class Call:
    """One call from its first byte to its last; a stream's seconds are sums over its items."""

    method: str  # such as "/mnist.v1.PredictionService/Predict"
    request_id: str
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0  # in all, once it has ended
    model: str = ""
    version: int = 0
    images: int = 0
    queue_seconds: float = 0.0
    run_seconds: float = 0.0
    trace: Trace | None = None


# Set by the interceptor, filled by the servicer; both run in the call's own thread.
current: ContextVar[Call] = ContextVar("call")
