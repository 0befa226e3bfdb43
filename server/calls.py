"""What is known of the call that is being answered, for its log line, metrics and trace."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where traces are wanted only
    from server.tracing import Trace


Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(slots=True, eq=False)
class Call:
    """One call from its first byte to its last; a stream's seconds are sums over its items."""

    method: str  # such as "/mnist.v1.PredictionService/Predict"
    metadata: Metadata  # the caller's
    code: str = "OK"  # the status code's name, once it has ended
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0  # in all, once it has ended
    model: str = ""
    version: int = 0
    images: int = 0
    queue_seconds: float = 0.0
    run_seconds: float = 0.0
    trace: Trace | None = None
    _request_id: str = ""

    @property
    def request_id(self) -> str:
        """The caller's own `x-request-id`, or one made when it is first asked for."""
        if not self._request_id:
            given = (value for key, value in self.metadata if key == "x-request-id")
            self._request_id = str(next(given, None) or secrets.token_hex(8))
        return self._request_id


# Set by the interceptor, filled by the servicer; both run in the call's own thread.
current: ContextVar[Call] = ContextVar("call")
