"""What is known of the call that is being answered, for its log line and its metrics."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field


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


# Set by the interceptor, filled by the servicer; both run in the call's own thread.
current: ContextVar[Call] = ContextVar("call")
