"""Reflection: what services and messages there are, for grpcurl and its like."""

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

# Open reflection calls: each holds a thread for as long as it is open.
MAX_STREAMS = 16


class ReflectionServicer(reflection.ReflectionServicer):
    """grpc_reflection's servicer, with a bound on how many calls are open at once."""

    def __init__(self, services: tuple[str, ...]) -> None:
        super().__init__(services)
        self._free = threading.BoundedSemaphore(MAX_STREAMS)

    def ServerReflectionInfo(
        self,
        request_iterator: Iterable[ServerReflectionRequest],
        context: Any,
    ) -> Iterator[ServerReflectionResponse]:
        """Answers questions as they come."""
        if not self._free.acquire(blocking=False):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"All {MAX_STREAMS} reflection calls are taken: try again later.",
            )
        try:
            yield from super().ServerReflectionInfo(request_iterator, context)
        finally:
            self._free.release()
