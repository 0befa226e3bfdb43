"""What is asked for at the same moment goes to the server as one call, and nobody notices."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import numpy as np
import numpy.typing as npt
import pytest
from conftest import Server, StartServer, until
from test_client_calls import Script, serving, status

from client import AsyncDigitClient, DeadlineExceeded, InvalidInput, NotFound, ServerError
from client.images import prepare
from client.samples import STROKES, draw
from gateway.coalescer import MOST, Coalescer, Kind

IMAGES = [prepare(draw(digit)) for digit in STROKES]
DEFAULT = Kind("", 0, "")


class Asking:
    """Who asks a coalescer.

    Args:
        client: the server.
    """

    def __init__(self, client: AsyncDigitClient) -> None:
        self._coalescer = Coalescer(client)

    async def about(
        self,
        image: npt.ArrayLike,
        kind: Kind = DEFAULT,
        request_id: str = "x",
        seconds: float = 30,
    ) -> int:
        """Returns the digit."""
        deadline = asyncio.get_running_loop().time() + seconds
        answer = await self._coalescer.predict(
            image, kind, request_id=request_id, deadline=deadline
        )
        return answer.digit


@asynccontextmanager
async def asking(address: str) -> AsyncIterator[Asking]:
    """Asks the server at an address."""
    async with AsyncDigitClient(address, timeout=30) as client:
        yield Asking(client)


@pytest.fixture
def script() -> Iterator[tuple[Script, str]]:
    """A scripted server, and its address."""
    script = Script()
    with serving(script) as address:
        yield script, address


def calls(server: Server) -> list[tuple[str, str]]:
    """The methods and request ids of the calls in a server's log."""
    lines = [line for line in server.log.read_text().splitlines() if "method=" in line]
    return [
        (re.findall(r"method=\S*/(\S+)", line)[0], re.findall(r"request_id=(\S+)", line)[0])
        for line in lines
    ]


def test_a_crowd_shares_a_call(start_server: StartServer, bundled_models: object) -> None:
    """Ten who ask at once each get their own answer, from one call, logged by all their ids."""
    server = start_server("--models", str(bundled_models))

    async def ask() -> list[int]:
        async with asking(server.address) as one:
            crowd = [one.about(image, request_id=f"id{i}") for i, image in enumerate(IMAGES)]
            return await asyncio.gather(*crowd)

    assert asyncio.run(ask()) == list(STROKES)
    until(lambda: calls(server))
    assert calls(server) == [("PredictBatch", ",".join(f"id{i}" for i in range(10)))]


def test_who_asks_alone_is_not_held_up(start_server: StartServer, bundled_models: object) -> None:
    """One after the other, each is a call of its own."""
    server = start_server("--models", str(bundled_models))

    async def ask() -> None:
        async with asking(server.address) as one:
            for digit in (3, 5):
                assert await one.about(IMAGES[digit], request_id=f"only{digit}") == digit

    asyncio.run(ask())
    until(lambda: len(calls(server)) == 2)
    assert calls(server) == [("Predict", "only3"), ("Predict", "only5")]


def test_a_bad_one_spoils_nothing(server: Server) -> None:
    """Among those who ask together, one is wrong and hears so; the others are answered."""

    async def ask() -> None:
        async with asking(server.address) as one:
            crowd = [*map(one.about, IMAGES), one.about(np.full((28, 28), 255.0))]
            *right, wrong = await asyncio.gather(*crowd, return_exceptions=True)
            assert right == list(STROKES)
            assert isinstance(wrong, InvalidInput)
            assert "pixels[0] is 255" in wrong.details
            assert wrong.violations[0].field == "pixels"

    asyncio.run(ask())


def test_models_are_kept_apart(server: Server) -> None:
    """Who asks a model that is not there is alone in hearing so."""

    async def ask() -> None:
        async with asking(server.address) as one:
            crowd = [one.about(IMAGES[7]), one.about(IMAGES[7], Kind("none", 0, ""))]
            right, wrong = await asyncio.gather(*crowd, return_exceptions=True)
            assert right == 7
            assert isinstance(wrong, NotFound)

    asyncio.run(ask())


def test_a_large_crowd_makes_several_calls(script: tuple[Script, str]) -> None:
    """No call holds more than a server of any --max-batch takes."""
    service, address = script

    async def ask() -> None:
        async with asking(address) as one:
            await asyncio.gather(*(one.about(IMAGES[1]) for _ in range(2 * MOST + 1)))

    asyncio.run(ask())
    sizes = [len(request.pixels) // 784 for request in service.requests]
    assert sorted(sizes) == [1, MOST, MOST]


def test_everyone_hears_what_went_wrong_with_all(script: tuple[Script, str]) -> None:
    """Where the call fails, so does each that shares it, with an error of its own."""
    service, address = script
    service.failures = [status(13, "broken")]

    async def ask() -> None:
        async with asking(address) as one:
            crowd = [one.about(image) for image in IMAGES]
            errors = await asyncio.gather(*crowd, return_exceptions=True)
            assert {type(error) for error in errors} == {ServerError}
            assert len(set(map(id, errors))) == len(IMAGES)

    asyncio.run(ask())


def test_each_gives_up_at_its_own_deadline(script: tuple[Script, str]) -> None:
    """The hurried one leaves, and the patient one that shares its call is answered."""
    service, address = script
    service.held.clear()

    async def ask() -> None:
        async with asking(address) as one:
            patient = asyncio.create_task(one.about(IMAGES[1]))
            with pytest.raises(DeadlineExceeded):
                await one.about(IMAGES[1], seconds=0.2)
            assert not patient.done()
            service.held.set()
            assert await patient == 7

    asyncio.run(ask())
    assert len(service.requests) == 1
