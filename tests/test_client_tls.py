"""The clients and a server know each other by certificates made for the test."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2_grpc

from client import TLS, AsyncDigitClient, DigitClient, Health, Unavailable


@pytest.fixture(scope="module")
def address(certificates: Path) -> Iterator[str]:
    """A service that asks its callers for a certificate of ca."""
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    key, cert, ca = (
        (certificates / f).read_bytes() for f in ("server.key", "server.pem", "ca.pem")
    )
    credentials = grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"localhost:{port}"
    server.stop(None).wait()


def test_both_sides_know_each_other(address: str, certificates: Path) -> None:
    """With the right authority, certificate and key, both clients are answered."""
    tls = TLS(*(certificates / name for name in ("ca.pem", "client.pem", "client.key")))
    with DigitClient(address, tls=tls) as blocking:
        assert blocking.health() is Health.SERVING

    async def ask() -> Health:
        async with AsyncDigitClient(address, tls=tls) as awaiting:
            return await awaiting.health()

    assert asyncio.run(ask()) is Health.SERVING


@pytest.mark.parametrize(
    "names",
    [
        ("other.pem", "client.pem", "client.key"),
        ("ca.pem",),
        ("ca.pem", "stranger.pem", "stranger.key"),
    ],
    ids=["a server of another authority", "no certificate", "a certificate of another authority"],
)
def test_strangers_are_not_talked_to(
    address: str, certificates: Path, names: tuple[str, ...]
) -> None:
    """A server that is not trusted, or a client that is not, is Unavailable."""
    tls = TLS(*(certificates / name for name in names))
    with DigitClient(address, tls=tls) as blocking, pytest.raises(Unavailable):
        blocking.health()


def test_plaintext_is_not_understood(address: str) -> None:
    """A client without TLS gets no answer from a server with it."""
    with DigitClient(address) as blocking, pytest.raises(Unavailable):
        blocking.health()


def test_the_flags_say_the_same(address: str, certificates: Path, project: Path) -> None:
    """The command line takes all three files, and without them ends with 3 and a sentence."""
    command = [sys.executable, "-m", "client", "health", "--server", address]
    files = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
    flags = [f"--tls-{name}={certificates / file}" for name, file in files.items()]
    assert subprocess.check_output([*command, *flags], cwd=project, text=True) == "SERVING\n"
    process = subprocess.run(
        [*command, flags[0]], cwd=project, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stdout) == (3, "")
    assert f"{address} is not available" in process.stderr


def test_a_key_of_another_certificate_is_refused(certificates: Path) -> None:
    """A certificate and a key that do not belong together are an error at once."""
    with pytest.raises(ValueError, match="are not a certificate and its unencrypted key"):
        TLS(cert=certificates / "client.pem", key=certificates / "server.key")
