"""What the blocking and the asyncio client share: everything but waiting."""

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

from grpc_health.v1 import health_pb2

from client import _wire
from client._channel import OPTIONS, TLS
from proto.mnist.v1 import prediction_service_pb2 as pb

Metadata = Mapping[str, str]

_TOKEN = re.compile(r"[!-~]+")


class BaseClient:
    """A channel to a server, and the server's methods on it."""

    # grpc or grpc.aio: the same names, once blocking and once awaited.
    _grpc: ClassVar[ModuleType]

    def __init__(
        self,
        target: str,
        *,
        timeout: float | None = 5.0,
        wait_for_ready: bool = False,
        tls: TLS | None = None,
        token: str | None = None,
    ) -> None:
        if token is not None and not _TOKEN.fullmatch(token):
            raise ValueError("A token is one word of visible ASCII characters.")
        self._timeout = timeout
        self._wait_for_ready = wait_for_ready
        # Not as call credentials: gRPC sends those over its own TLS only, and not where
        # something else encrypts, such as a service mesh.
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        channel: Any = (
            self._grpc.insecure_channel(target, options=OPTIONS)
            if tls is None
            else self._grpc.secure_channel(target, tls.credentials(), options=OPTIONS)
        )
        self._channel = channel
        # Without a serialiser, requests are the bytes that `_wire.encode` made.
        self._predict = channel.unary_unary(
            _wire.PREDICT, response_deserializer=pb.PredictResponse.FromString
        )
        self._predict_batch = channel.unary_unary(
            _wire.PREDICT_BATCH, response_deserializer=pb.PredictBatchResponse.FromString
        )
        self._predict_stream = channel.stream_stream(
            _wire.PREDICT_STREAM, response_deserializer=pb.PredictStreamResponse.FromString
        )
        self._list_models = channel.unary_unary(
            _wire.LIST_MODELS, response_deserializer=pb.ListModelsResponse.FromString
        )
        self._check = channel.unary_unary(
            _wire.CHECK, response_deserializer=health_pb2.HealthCheckResponse.FromString
        )

    def _call(self, timeout: float | None, metadata: Metadata | None) -> dict[str, Any]:
        """Returns the arguments that every call of one answer gets."""
        return self._stream(self._timeout if timeout is None else timeout, metadata)

    def _stream(self, timeout: float | None, metadata: Metadata | None) -> dict[str, Any]:
        """Returns the arguments that a stream gets: no timeout but its own."""
        own = tuple(metadata.items()) if metadata else ()
        return {
            "timeout": timeout,
            "wait_for_ready": self._wait_for_ready,
            "metadata": (*self._metadata, *own),
        }
