"""What went wrong, as RFC 9457 has it: one table from our errors to HTTP's statuses."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from client import (
    AccessDenied,
    ClientError,
    DeadlineExceeded,
    FieldViolation,
    InvalidInput,
    NotFound,
    Overloaded,
    ServerError,
    Unavailable,
)
from gateway.schemas import Problem, Violation

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1  # where the server does not say

_STATUSES: dict[type[ClientError], HTTPStatus] = {
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    Overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    # It is the gateway's token that the server does not know, not the caller's.
    AccessDenied: HTTPStatus.BAD_GATEWAY,
    ServerError: HTTPStatus.BAD_GATEWAY,
}
# What gRPC says of these names addresses, which are nobody's business out here.
_SENTENCES: dict[type[ClientError], str] = {
    Unavailable: "No server answers at the moment: try again in a second.",
    DeadlineExceeded: "No answer came in time: try again, or send less at once.",
    AccessDenied: "The server does not let this gateway in: its token or certificate is wrong.",
}


def responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Returns what OpenAPI says of a path that may answer with these problems."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {int(status): {"description": status.phrase, "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Makes everything that goes wrong in the app a problem document."""
    app.exception_handler(ClientError)(_of_client)
    app.exception_handler(RequestValidationError)(_of_parameters)
    app.exception_handler(HTTPException)(_of_http)
    app.exception_handler(Exception)(_of_the_unforeseen)


def _answer(
    request: Request,
    status: HTTPStatus,
    detail: str,
    *,
    violations: tuple[FieldViolation, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    problem = Problem.of(
        status,
        detail,
        request.state.request_id,
        [Violation(field=one.field, description=one.description) for one in violations],
    )
    return Response(problem.model_dump_json(), status, headers, MEDIA_TYPE)


async def _of_client(request: Request, error: ClientError) -> Response:
    kind = type(error)
    status = _STATUSES.get(kind, HTTPStatus.BAD_GATEWAY)
    headers = {}
    if isinstance(error, Overloaded | Unavailable):
        wait = getattr(error, "retry_after", None) or RETRY_SECONDS
        headers = {"retry-after": str(math.ceil(wait))}
    violations = error.violations if isinstance(error, InvalidInput) else ()
    detail = _SENTENCES.get(kind, str(error))
    return _answer(request, status, detail, violations=violations, headers=headers)


async def _of_parameters(request: Request, error: RequestValidationError) -> Response:
    found = tuple(FieldViolation(str(one["loc"][-1]), f"{one['msg']}.") for one in error.errors())
    sentence = " ".join(f"{one.field}: {one.description}" for one in found)
    return _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, sentence, violations=found)


async def _of_http(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    match status:
        case HTTPStatus.NOT_FOUND:
            detail = f"There is nothing at {request.url.path}: /docs lists what there is."
        case HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"{request.url.path} does not take {request.method}: /docs says what it takes."
        case _:
            detail = error.detail
    return _answer(request, status, detail, headers=error.headers)


async def _of_the_unforeseen(request: Request, _: Exception) -> Response:
    request_id = request.state.request_id
    detail = f"The gateway failed on this request: its log says why, under {request_id}."
    return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)
