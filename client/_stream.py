"""One stream's images, both ways, without any I/O."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from client._errors import ClientError, InvalidInput, from_status
from client._pixels import as_image
from client._types import Prediction, prediction
from client._wire import encode
from proto.mnist.v1 import prediction_service_pb2 as pb

_NO_PIXELS = np.empty(0, np.float32)


class Stream:
    """Encodes the images of a stream and pairs each answer with its image.

    An image that is no image is sent as one without pixels: the server answers
    every request, in order, so its place in the stream is kept, and the answer is
    replaced by what was really wrong with it.
    """

    def __init__(self, model: str, version: int) -> None:
        self._model = model
        self._version = version
        self._sent = 0
        self._answered = 0
        self._refused: dict[int, InvalidInput] = {}
        self._failure: Exception | None = None

    def requests(self, images: Iterable[npt.ArrayLike]) -> Iterator[bytes]:
        """Yields the serialised requests; where `images` fails, keeps that for `close`."""
        try:
            for image in images:
                yield self._request(image)
        except Exception as error:  # noqa: BLE001 - it is the caller's, and raised in `close`
            self._failure = error

    async def async_requests(
        self, images: AsyncIterable[npt.ArrayLike] | Iterable[npt.ArrayLike]
    ) -> AsyncIterator[bytes]:
        """Does as `requests`, for images that come in either way."""
        if not isinstance(images, AsyncIterable):
            for request in self.requests(images):
                yield request
            return
        try:
            async for image in images:
                yield self._request(image)
        except Exception as error:  # noqa: BLE001 - it is the caller's, and raised in `close`
            self._failure = error

    def outcome(self, response: pb.PredictStreamResponse) -> Prediction | ClientError:
        """Returns what became of the next image."""
        refused = self._refused.pop(self._answered, None)
        self._answered += 1
        if refused is not None:
            return refused
        if response.WhichOneof("outcome") == "error":
            return from_status(response.error)
        return prediction(response.prediction, response.model, response.model_version)

    def close(self) -> None:
        """Raises what the caller's own iterable raised, once all before it is answered."""
        if self._failure is not None:
            raise self._failure

    def _request(self, image: npt.ArrayLike) -> bytes:
        try:
            pixels = as_image(image)
        except InvalidInput as error:
            self._refused[self._sent] = error
            pixels = _NO_PIXELS
        self._sent += 1
        return encode(pixels, self._model, self._version)
