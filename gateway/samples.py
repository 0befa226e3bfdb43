"""The gallery: the digits that the project drew itself, and what a model sees in them."""

import asyncio
from functools import cache
from http import HTTPStatus
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response

from client import AsyncDigitClient
from client.images import prepare
from client.samples import STROKES, draw
from gateway import schemas
from gateway.bodies import Slots
from gateway.edge import metadata
from gateway.pages import page
from gateway.predictions import Model, Version
from gateway.problems import responses

_AS_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {"schema": {"type": "string"}}}}
}
_PROBLEMS = responses(
    HTTPStatus.NOT_FOUND,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)


def router(client: AsyncDigitClient, timeout: float, slots: Slots) -> APIRouter:
    """Returns its route.

    Args:
        client: the server behind.
        timeout: seconds that a request may take.
        slots: how many requests may be under way.
    """
    router = APIRouter(tags=["samples"])

    @router.get("/samples", response_model=schemas.Samples, responses=_PROBLEMS | _AS_PAGE)
    async def samples(
        request: Request, response: Response, model: Model = "", version: Version = 0
    ) -> Any:
        """List the samples with what a model sees in them; for browsers, as a page."""
        if "text/html" in request.headers.get("accept", ""):
            shown = page("samples")
            shown.headers["vary"] = "accept"
            return shown
        response.headers["vary"] = "accept"
        with slots.taken():
            images = await asyncio.to_thread(_images)
            answers = await client.predict_batch(
                images,
                model=model,
                version=version,
                timeout=timeout,
                metadata=metadata(request.state.request_id, request.state.traceparent),
            )
        return schemas.Samples(
            samples=[
                schemas.Sample.of(answer, pixels=image.tolist(), digit=digit, strokes=strokes)
                for answer, image, (digit, strokes) in zip(
                    answers, images, STROKES.items(), strict=True
                )
            ]
        )

    return router


@cache
def _images() -> list[npt.NDArray[np.float32]]:
    return [prepare(draw(digit)) for digit in STROKES]
