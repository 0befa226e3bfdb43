"""The clients and their commands show a token to a server that asks for one."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Server, StartServer

from client import TLS, AccessDenied, AsyncDigitClient, DigitClient, Prediction

IMAGE = np.zeros((28, 28))


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The token that the servers here know."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text("secret\n")
    return file


@pytest.fixture(scope="module")
def guarded(start_server: StartServer, bundled_models: Path, token_file: Path) -> Server:
    """A server that asks for it, in plaintext."""
    return start_server("--models", str(bundled_models), "--auth-token-file", str(token_file))


def test_a_token_opens_every_method(guarded: Server) -> None:
    """Calls and streams of the blocking client have it with them."""
    with DigitClient(guarded.address, token="secret") as client:
        assert client.predict(IMAGE).model == "digitnet"
        assert len(client.predict_batch([IMAGE] * 3)) == 3
        assert isinstance(next(client.predict_stream([IMAGE])), Prediction)
        assert client.models()


def test_a_token_opens_every_awaited_method(guarded: Server) -> None:
    """The same for asyncio."""

    async def ask() -> None:
        async with AsyncDigitClient(guarded.address, token="secret") as client:
            assert (await client.predict(IMAGE)).model == "digitnet"
            assert len(await client.predict_batch([IMAGE] * 3)) == 3
            assert [type(one) async for one in client.predict_stream([IMAGE])] == [Prediction]
            assert await client.models()

    asyncio.run(ask())


@pytest.mark.parametrize("token", [None, "wrong"])
def test_without_it_access_is_denied(guarded: Server, token: str | None) -> None:
    """No token and a wrong one are AccessDenied, of a call and of a stream."""
    with DigitClient(guarded.address, token=token) as client:
        with pytest.raises(AccessDenied, match="A valid token is needed"):
            client.predict(IMAGE)
        with pytest.raises(AccessDenied, match="A valid token is needed"):
            next(client.predict_stream([IMAGE]))


def test_a_token_goes_over_tls(
    start_server: StartServer, bundled_models: Path, certificates: Path, token_file: Path
) -> None:
    """Encryption and token are asked for together, and given together."""
    tls = [
        f"--tls-{kind}={certificates}/server.{end}"
        for kind, end in (("cert", "pem"), ("key", "key"))
    ]
    flags = ("--models", str(bundled_models), "--auth-token-file", str(token_file))
    address = start_server(*flags, *tls).address
    with DigitClient(address, tls=TLS(certificates / "ca.pem"), token="secret") as client:
        assert client.predict(IMAGE).model == "digitnet"


@pytest.mark.parametrize("token", ["", "two words", "line\n", "schlüssel"])
def test_what_can_be_no_token_is_refused(token: str) -> None:
    """What no header can carry is an error before anything is sent."""
    with pytest.raises(ValueError, match="one word of visible ASCII characters"):
        DigitClient("localhost:1", token=token)


def test_the_commands_take_it_from_a_file(
    project: Path, guarded: Server, token_file: Path, tmp_path: Path
) -> None:
    """--token-file lets in; without it exit code 1 names it; an empty file is a usage error."""

    def models(*flags: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "client", "models", "--server", guarded.address, *flags]
        process = subprocess.run(command, cwd=project, capture_output=True, text=True)
        assert "Traceback" not in process.stderr
        return process.returncode, process.stdout + process.stderr

    code, said = models("--token-file", str(token_file))
    assert (code, "digitnet" in said) == (0, True)
    code, said = models()
    assert (code, "--token-file" in said) == (1, True)
    empty = tmp_path / "empty"
    empty.touch()
    code, said = models("--token-file", str(empty))
    assert code == 2
    assert "--token-file: A token is one word of visible ASCII characters." in said
