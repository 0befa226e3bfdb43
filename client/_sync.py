"""The client for threads."""

from __future__ import annotations  # the multi-callables are generic in their stubs only

from collections.abc import Iterable, Iterator
from types import ModuleType, TracebackType
from typing import ClassVar, Self

import grpc
import numpy.typing as npt
from grpc_health.v1 import health_pb2

from client import _types, _wire
from client._base import BaseClient, Metadata
from client._errors import ClientError, translated
from client._pixels import as_batch, as_image
from client._stream import Stream
from proto.mnist.v1 import prediction_service_pb2 as pb


class DigitClient(BaseClient):
    """Asks a server about digits. Safe to share between threads; close it when done.

    Calls are spread over all addresses of the target in turn (round robin), and
    sent again, up to five times within their timeout, where the server is
    unavailable or overloaded.

    Args:
        target: The server: "host:port", or a gRPC name such as "dns:///digits:50051".
        timeout: Seconds that a call may take, retries included; None for no limit.
        wait_for_ready: Whether calls wait, up to their timeout, for a server to come
            up, instead of failing once the retries are used up.
        tls: How to encrypt; None for plaintext.
        token: What servers with --auth-token-file ask for, sent with each call as
            `authorization: Bearer`. Without `tls`, whoever is in between can read it.

    Raises:
        ValueError: `token` is not one word of visible ASCII characters.

    Every method raises a `ClientError`, of which `client` exports the whole tree.
    """

    _grpc: ClassVar[ModuleType] = grpc
    _channel: grpc.Channel
    _predict: grpc.UnaryUnaryMultiCallable[bytes, pb.PredictResponse]
    _predict_batch: grpc.UnaryUnaryMultiCallable[bytes, pb.PredictBatchResponse]
    _predict_stream: grpc.StreamStreamMultiCallable[bytes, pb.PredictStreamResponse]
    _list_models: grpc.UnaryUnaryMultiCallable[bytes, pb.ListModelsResponse]
    _check: grpc.UnaryUnaryMultiCallable[bytes, health_pb2.HealthCheckResponse]

    def predict(
        self,
        image: npt.ArrayLike,
        *,
        model: str = "",
        version: int = 0,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> _types.Prediction:
        """Recognises one digit.

        Args:
            image: Shape [28, 28], [784] or [1, 28, 28], row by row from the top left,
                0 is background: floats in [0, 1], or uint8 from 0 to 255.
            model: Name of the model; empty for the server's default.
            version: Version of the model; 0 for the newest that is ready.
            timeout: Seconds that the call may take; None for the client's own.
            metadata: What to send beside the call, such as `x-request-id`, by which the
                server's log calls it, or `traceparent`.
        """
        request = _wire.encode(as_image(image), model, version)
        with translated():
            response = self._predict(request, **self._call(timeout, metadata))
        return _types.prediction(response.prediction, response.model, response.model_version)

    def predict_batch(
        self,
        images: npt.ArrayLike | Iterable[npt.ArrayLike],
        *,
        model: str = "",
        version: int = 0,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> list[_types.Prediction]:
        """Recognises many digits in one call, in their order; all of them or none.

        Args:
            images: One array whose first axis counts the images, or an iterable of
                images; each as in `predict`.
            model: Name of the model; empty for the server's default.
            version: Version of the model; 0 for the newest that is ready.
            timeout: Seconds that the call may take; None for the client's own.
            metadata: As in `predict`.
        """
        request = _wire.encode(as_batch(images), model, version)
        with translated():
            response = self._predict_batch(request, **self._call(timeout, metadata))
        return _types.predictions(response)

    def predict_stream(
        self,
        images: Iterable[npt.ArrayLike],
        *,
        model: str = "",
        version: int = 0,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[_types.Prediction | ClientError]:
        """Recognises digits as they come, over one call.

        Args:
            images: Each as in `predict`. They are taken ahead of the answers, by
                another thread.
            model: Name of the model; empty for the server's default.
            version: Version of the model; 0 for the newest that is ready.
            timeout: Seconds that the whole stream may take; None for no limit, as a
                stream lasts as long as its images.
            metadata: As in `predict`.

        Yields:
            One outcome per image, in order: its prediction, or what was wrong with
            it, which does not end the stream.
        """
        stream = Stream(model, version)
        requests = stream.requests(images)
        call = self._predict_stream(requests, **self._stream(timeout, metadata))
        try:
            with translated():
                for response in call:
                    yield stream.outcome(response)
        finally:
            call.cancel()
        stream.close()

    def models(
        self, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> list[_types.Model]:
        """Lists every model and version that the server knows, by name and version."""
        with translated():
            return _types.models(self._list_models(b"", **self._call(timeout, metadata)))

    def health(
        self,
        service: str = "",
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> _types.Health:
        """Says whether the server answers requests.

        Args:
            service: Empty for the whole server, or the full name of one of its
                services, or "models/<name>".
            timeout: Seconds that the call may take; None for the client's own.
            metadata: As in `predict`.
        """
        request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        with translated():
            return _types.health(self._check(request, **self._call(timeout, metadata)))

    def close(self) -> None:
        """Closes the connections; calls that are under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Returns the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the connections."""
        self.close()
