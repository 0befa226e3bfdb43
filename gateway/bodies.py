"""What callers send: read within bounds, and taken apart."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TypeVar, cast

from fastapi import HTTPException, Request
from msgspec import DecodeError, ValidationError
from msgspec.json import Decoder
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from client import FieldViolation, InvalidInput
from gateway.problems import RETRY_SECONDS

JSON = "application/json"
FORM = "multipart/form-data"
PICTURES = ("image/png", "image/jpeg", "image/webp")

MOST_WORDS = 200  # characters of an error that may quote the body

# As gRPC writes deadlines: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
TIMEOUT = r"^\d{1,8}[HMSmun]$"
_UNITS = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}

_Body = TypeVar("_Body")


class Slots:
    """How many requests of a kind may be under way: memory is bounded by them times their size.

    Args:
        most: so many.
    """

    def __init__(self, most: int) -> None:
        self._free = most

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Takes one for the block's duration.

        Raises:
            HTTPException: 429, none is free.
        """
        if not self._free:
            raise HTTPException(
                HTTPStatus.TOO_MANY_REQUESTS,
                "The gateway has as much to do as it takes: try again in a second.",
                {"retry-after": str(RETRY_SECONDS)},
            )
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


def timeout(request: Request, most: float) -> float:
    """Returns how many seconds the request may take: `Grpc-Timeout`, but not more than `most`.

    Raises:
        HTTPException: 400, the header is none.
    """
    given = request.headers.get("grpc-timeout")
    if given is None:
        return most
    if not re.fullmatch(TIMEOUT, given):
        raise HTTPException(
            HTTPStatus.BAD_REQUEST,
            "Grpc-Timeout is a number and a unit (H, M, S, m, u or n): send 500m for 500 ms.",
        )
    return min(most, int(given[:-1]) * _UNITS[given[-1]])


async def parsed(request: Request, decoder: Decoder[_Body], *, most: int, seconds: float) -> _Body:
    """Reads and checks a JSON body.

    Args:
        request: whose body it is.
        decoder: knows what it should be.
        most: bytes that it may have.
        seconds: what it may take to come.

    Raises:
        HTTPException: it is no JSON, too large, too slow, or not whole.
        InvalidInput: it is not what it should be.
    """
    if _media_type(request) != JSON:
        raise _unsupported(f"Send JSON, with content-type: {JSON}.")
    content = await _read(request, most, seconds)
    try:
        return decoder.decode(content)
    except ValidationError as error:
        what, _, path = str(error).partition(" - at ")
        field = path.strip("`").removeprefix("$.")
        advice = f"{what[:MOST_WORDS]}: send 28 rows of 28 numbers from 0 (background) to 1 (ink)."
        sentence = f"{field}: {advice}" if field else advice
        raise InvalidInput(sentence, violations=(FieldViolation(field, advice),)) from error
    except (DecodeError, UnicodeDecodeError) as error:
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, f"{error}: send JSON, which knows no NaN and no Infinity."
        ) from error


async def uploaded(request: Request, *, most: int, seconds: float) -> bytes:
    """Reads a picture, which is the whole body or the one file of a form.

    Args:
        request: whose body it is.
        most: bytes that it may have.
        seconds: what it may take to come.

    Raises:
        HTTPException: it is no picture by its content type, too large, too slow, or not whole.
    """
    media_type = _media_type(request)
    if media_type not in (*PICTURES, FORM):
        raise _unsupported(f"Send a picture as {', '.join(PICTURES)}, or as a file in a {FORM}.")
    content = await _read(request, most, seconds)
    return await _file_in(content, request) if media_type == FORM else content


async def _read(request: Request, most: int, seconds: float) -> bytes:
    too_large = HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is too large: send at most {most:,} bytes."
    )
    if int(request.headers.get("content-length", 0)) > most:
        raise too_large
    content = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                content += chunk
                if len(content) > most:
                    raise too_large
    except ClientDisconnect as error:  # nobody hears it, and it is nothing for the log
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, "The body ended early: send all of it."
        ) from error
    except TimeoutError as error:
        raise HTTPException(
            HTTPStatus.REQUEST_TIMEOUT,
            "The body did not come in time: send it faster, or send less.",
            {"connection": "close"},
        ) from error
    return bytes(content)


async def _file_in(form: bytes, request: Request) -> bytes:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield form

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=0)
    parser.spool_max_size = len(form)  # never on disk, which may be read-only
    try:
        files = (await parser.parse()).values()
    except MultiPartException as error:
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, f"{error.message} Send a form with one file and nothing else."
        ) from error
    for file in files:
        return await cast("UploadFile", file).read()
    raise HTTPException(HTTPStatus.BAD_REQUEST, "The form is empty: send a picture in it.")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _unsupported(sentence: str) -> HTTPException:
    return HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, sentence)
