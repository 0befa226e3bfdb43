"""The client for asyncio."""

from __future__ import annotations  # the multi-callables are generic in their stubs only

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import ModuleType, TracebackType
from typing import ClassVar, Self

import grpc.aio
import numpy.typing as npt
from grpc_health.v1 import health_pb2

from client import _types, _wire
from client._base import BaseClient, Metadata
from client._errors import ClientError, translated
from client._pixels import as_batch, as_image
from client._stream import Stream
from proto.mnist.v1 import prediction_service_pb2 as pb


class AsyncDigitClient(BaseClient):
    """`DigitClient` for asyncio: the same arguments, methods and errors, awaited.

    Made, used and closed within one running event loop.
    """

    _grpc: ClassVar[ModuleType] = grpc.aio
    _channel: grpc.aio.Channel
    _predict: grpc.aio.UnaryUnaryMultiCallable[bytes, pb.PredictResponse]
    _predict_batch: grpc.aio.UnaryUnaryMultiCallable[bytes, pb.PredictBatchResponse]
    _predict_stream: grpc.aio.StreamStreamMultiCallable[bytes, pb.PredictStreamResponse]
    _list_models: grpc.aio.UnaryUnaryMultiCallable[bytes, pb.ListModelsResponse]
    _check: grpc.aio.UnaryUnaryMultiCallable[bytes, health_pb2.HealthCheckResponse]

    async def predict(
        self,
        image: npt.ArrayLike,
        *,
        model: str = "",
        version: int = 0,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> _types.Prediction:
        """Recognises one digit, as `DigitClient.predict` does."""
        request = _wire.encode(as_image(image), model, version)
        with translated():
            response = await self._predict(request, **self._call(timeout, metadata))
        return _types.prediction(response.prediction, response.model, response.model_version)

    async def predict_batch(
        self,
        images: npt.ArrayLike | Iterable[npt.ArrayLike],
        *,
        model: str = "",
        version: int = 0,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> list[_types.Prediction]:
        """Recognises many digits in one call, as `DigitClient.predict_batch` does."""
        request = _wire.encode(as_batch(images), model, version)
        with translated():
            response = await self._predict_batch(request, **self._call(timeout, metadata))
        return _types.predictions(response)

    async def predict_stream(
        self,
        images: AsyncIterable[npt.ArrayLike] | Iterable[npt.ArrayLike],
        *,
        model: str = "",
        version: int = 0,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[_types.Prediction | ClientError]:
        """Recognises digits as they come, as `DigitClient.predict_stream` does.

        Where the whole stream fails while images are still being sent, gRPC for asyncio
        may hide the reason behind a `ServerError` (github.com/grpc/grpc/issues/36066).

        Args:
            images: From any iterable, awaited or not; taken ahead of the answers.
            model: Name of the model; empty for the server's default.
            version: Version of the model; 0 for the newest that is ready.
            timeout: Seconds that the whole stream may take; None for no limit.
            metadata: As in `DigitClient.predict`.

        Yields:
            One outcome per image, in order.
        """
        stream = Stream(model, version)
        requests = stream.async_requests(images)
        call = self._predict_stream(requests, **self._stream(timeout, metadata))
        try:
            with translated():
                async for response in call:
                    yield stream.outcome(response)
        finally:
            call.cancel()
        stream.close()

    async def models(
        self,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> list[_types.Model]:
        """Lists every model and version that the server knows, by name and version."""
        with translated():
            return _types.models(await self._list_models(b"", **self._call(timeout, metadata)))

    async def health(
        self,
        service: str = "",
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> _types.Health:
        """Says whether the server answers requests, as `DigitClient.health` does."""
        request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        with translated():
            return _types.health(await self._check(request, **self._call(timeout, metadata)))

    async def close(self) -> None:
        """Closes the connections; calls that are under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """Returns the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the connections."""
        await self.close()
