"""The paths that predict."""

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Query, Request
from msgspec.json import Decoder

from client import AsyncDigitClient, Prediction
from client.images import load, prepare
from gateway import bodies, schemas
from gateway.bodies import Slots
from gateway.coalescer import Coalescer, Kind
from gateway.edge import metadata
from gateway.problems import responses

# One image takes 16 KB at full precision, and twice that nicely indented.
IMAGE_BYTES = 256 * 1024
BATCH_BYTES = 8 * 1024 * 1024
PICTURE_BYTES = 8 * 1024 * 1024
# Those of a photo; decoding them takes 190 MB at worst, for each of the preparers.
PICTURE_PIXELS = 4096 * 3072

MAX_BATCHES, MAX_PICTURES = 8, 16
# Threads that prepare pictures: one picture never waits for another one's decoding.
PREPARERS = 2

_IMAGE = Decoder(schemas.PredictRequest)
_BATCH = Decoder(schemas.PredictBatchRequest)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "properties": {"image": _BINARY["schema"]}, "required": ["image"]}

Model = Annotated[str, Query(description="Who answers; empty for the server's default.")]
Version = Annotated[int, Query(ge=0, lt=2**63, description="0 for the newest that is ready.")]


def _takes(content: dict[str, Any]) -> dict[str, Any]:
    """Returns what OpenAPI says of a body that FastAPI leaves to us, and of its deadline."""
    deadline = {
        "name": "Grpc-Timeout",
        "in": "header",
        "description": "How long the answer may take, such as 500m for 500 ms.",
        "schema": {"type": "string", "pattern": bodies.TIMEOUT},
    }
    return {"requestBody": {"required": True, "content": content}, "parameters": [deadline]}


def _json(name: str) -> dict[str, Any]:
    return _takes({bodies.JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}})


_PROBLEMS = responses(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)


class Predictions:
    """Answers them.

    Args:
        client: the server behind.
        timeout: seconds that a request may take.
        slots: how many requests may be under way; batches and pictures, which are large,
            have their own.
    """

    def __init__(self, client: AsyncDigitClient, timeout: float, slots: Slots) -> None:
        self._client = client
        self._coalescer = Coalescer(client)
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._slots = slots
        self._batches, self._pictures = Slots(MAX_BATCHES), Slots(MAX_PICTURES)
        self._preparers = ThreadPoolExecutor(PREPARERS, "prepare")

    def router(self) -> APIRouter:
        """Returns their routes."""
        router = APIRouter(tags=["predictions"], responses=_PROBLEMS)
        router.add_api_route(
            "/predict",
            self.predict,
            methods=["POST"],
            openapi_extra=_json("PredictRequest"),
        )
        router.add_api_route(
            "/predict/batch",
            self.predict_batch,
            methods=["POST"],
            openapi_extra=_json("PredictBatchRequest"),
        )
        pictures = dict.fromkeys(bodies.PICTURES, _BINARY) | {bodies.FORM: {"schema": _FORM}}
        router.add_api_route(
            "/predict/image",
            self.predict_picture,
            methods=["POST"],
            openapi_extra=_takes(pictures),
        )
        return router

    async def predict(
        self, request: Request, model: Model = "", version: Version = 0
    ) -> schemas.Prediction:
        """Recognise one digit, given as 28 rows of 28 values."""
        deadline = self._deadline(request)
        with self._slots.taken():
            body = await bodies.parsed(request, _IMAGE, most=IMAGE_BYTES, seconds=self._timeout)
            answer = await self._answer(request, body.pixels, model, version, deadline)
            return schemas.Prediction.of(answer)

    async def predict_batch(
        self, request: Request, model: Model = "", version: Version = 0
    ) -> schemas.BatchPrediction:
        """Recognise many digits, in their order: all of them or none."""
        deadline = self._deadline(request)
        with self._batches.taken():
            body = await bodies.parsed(request, _BATCH, most=BATCH_BYTES, seconds=self._timeout)
            answers = await self._client.predict_batch(
                body.pixels,
                model=model,
                version=version,
                timeout=deadline - self._loop.time(),
                metadata=metadata(request.state.request_id, request.state.traceparent),
            )
        return schemas.BatchPrediction(predictions=list(map(schemas.Prediction.of, answers)))

    async def predict_picture(
        self, request: Request, model: Model = "", version: Version = 0
    ) -> schemas.PicturePrediction:
        """Recognise the digit in a picture, which is prepared as MNIST prepared its own.

        The answer holds the image that the picture was made into.
        """
        deadline = self._deadline(request)
        with self._pictures.taken():
            content = await bodies.uploaded(request, most=PICTURE_BYTES, seconds=self._timeout)
            pixels = await self._loop.run_in_executor(self._preparers, _prepared, content)
            answer = await self._answer(request, pixels, model, version, deadline)
        return schemas.PicturePrediction.of(answer, pixels=pixels.tolist())

    def _deadline(self, request: Request) -> float:
        return self._loop.time() + bodies.timeout(request, self._timeout)

    async def _answer(
        self, request: Request, pixels: npt.ArrayLike, model: str, version: int, deadline: float
    ) -> Prediction:
        kind = Kind(model, version, request.state.traceparent)
        request_id = request.state.request_id
        return await self._coalescer.predict(pixels, kind, request_id=request_id, deadline=deadline)


def _prepared(content: bytes) -> npt.NDArray[np.float32]:
    return prepare(load(io.BytesIO(content), max_pixels=PICTURE_PIXELS))
