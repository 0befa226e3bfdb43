"""Sends what is asked for at the same moment to the server as one call.

A call costs the gateway and the server the same whether it holds one image or many,
and more than one image costs either. So predictions that are asked for in the same
turn of the event loop go together: a lone one never waits, and a crowd, whose
requests are read several at a turn, shares its calls by itself.
"""

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy.typing as npt

from client import AsyncDigitClient, DeadlineExceeded, InvalidInput, Prediction
from gateway import metrics
from gateway.edge import metadata

# Few enough for any server's --max-batch, and for gRPC's 8 KiB of metadata that their
# ids share.
MOST = 64


class Kind(NamedTuple):
    """What predictions must have in common to go together.

    Attributes:
        model: name of the model; empty for the server's default.
        version: version of the model; 0 for the newest.
        traceparent: the trace that they belong to (W3C); empty for none.
    """

    model: str
    version: int
    traceparent: str


@dataclass(slots=True, eq=False)
class _Asked:
    pixels: npt.ArrayLike
    request_id: str
    deadline: float
    answer: asyncio.Future[Prediction]


class Coalescer:
    """Asks a server for predictions, many at a time where many are wanted.

    Args:
        client: the server; made, like this, in the event loop that uses it.
    """

    def __init__(self, client: AsyncDigitClient) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._groups: dict[Kind, list[_Asked]] = {}
        self._calls: set[asyncio.Task[None]] = set()  # a loop keeps no task alive

    async def predict(
        self, pixels: npt.ArrayLike, kind: Kind, *, request_id: str, deadline: float
    ) -> Prediction:
        """Recognises one digit.

        Args:
            pixels: 28×28 values from 0 to 1.
            kind: who shall answer.
            request_id: how the server's log calls it; several share a line there.
            deadline: when its caller gives up, by the event loop's clock.

        Raises:
            ClientError: what went wrong with this image, whatever the others are.
        """
        group = self._groups.get(kind)
        if group is None or len(group) == MOST:
            group = self._groups[kind] = []
            self._loop.call_soon(self._send, kind, group)
        asked = _Asked(pixels, request_id, deadline, self._loop.create_future())
        group.append(asked)
        try:
            async with asyncio.timeout_at(deadline):
                return await asked.answer
        except TimeoutError as error:
            raise DeadlineExceeded("No answer came in time.") from error

    def _send(self, kind: Kind, group: list[_Asked]) -> None:
        if self._groups.get(kind) is group:
            del self._groups[kind]
        call = self._loop.create_task(self._call(kind, group))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, kind: Kind, group: Sequence[_Asked]) -> None:
        try:
            answers = await self._answers(kind, group)
        except InvalidInput as error:
            if len(group) == 1:
                _fail(group, error)
            else:  # one of them is wrong, and each is to hear of its own
                await asyncio.gather(*(self._call(kind, [asked]) for asked in group))
        except Exception as error:  # noqa: BLE001 - it is for those who wait to see
            _fail(group, error)
        else:
            for asked, answer in zip(group, answers, strict=True):
                if not asked.answer.done():
                    asked.answer.set_result(answer)

    async def _answers(self, kind: Kind, group: Sequence[_Asked]) -> Sequence[Prediction]:
        metrics.call_images.observe(len(group))
        options: dict[str, Any] = {
            "model": kind.model,
            "version": kind.version,
            # Who has less time gives up alone.
            "timeout": max(asked.deadline for asked in group) - self._loop.time(),
            "metadata": metadata(",".join(asked.request_id for asked in group), kind.traceparent),
        }
        if len(group) == 1:
            return [await self._client.predict(group[0].pixels, **options)]
        return await self._client.predict_batch([asked.pixels for asked in group], **options)


def _fail(group: Sequence[_Asked], error: Exception) -> None:
    for asked in group:
        if not asked.answer.done():
            # Each raises its own, since raising adds to an error's trace.
            asked.answer.set_exception(copy.copy(error))
