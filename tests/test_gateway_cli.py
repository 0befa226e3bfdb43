"""Every flag of the gateway has a help sentence and a twin in the environment that works."""

import socket
import subprocess
import sys
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner
from conftest import Server, StartServer

from gateway.cli import main

OPTIONS = [option for option in main.params if isinstance(option, click.Option)]


@pytest.mark.parametrize("option", OPTIONS, ids=[option.opts[0] for option in OPTIONS])
def test_every_flag_reads_its_twin(option: click.Option) -> None:
    """--server is MNIST_GATEWAY_SERVER, and so on; --port is PORT too, as for the server."""
    assert option.help
    twin = f"MNIST_GATEWAY_{option.opts[0].removeprefix('--').replace('-', '_').upper()}"
    context = click.Context(main, auto_envvar_prefix="MNIST_GATEWAY")
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("PORT", raising=False)
        assert option.resolve_envvar_value(context) is None
        environment.setenv("PORT", "8080")
        assert option.resolve_envvar_value(context) == ("8080" if option.name == "port" else None)
        environment.setenv(twin, "7")
        assert option.resolve_envvar_value(context) == "7"


def test_the_environment_is_obeyed(start_gateway: StartServer, server: Server) -> None:
    """A gateway that is told by its environment where its server is finds it."""
    gateway = start_gateway(env={"MNIST_GATEWAY_SERVER": server.address})
    assert httpx.get(f"{gateway.address}/readyz").status_code == 200


def test_it_leaves_when_told_to(start_gateway: StartServer) -> None:
    """SIGTERM is a wish, not a failure: exit code 0, and no trace in the log."""
    gateway = start_gateway()
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.log.read_text()


def test_it_speaks_tls_and_shows_its_token(
    start_server: StartServer,
    start_gateway: StartServer,
    bundled_models: Path,
    certificates: Path,
    tmp_path: Path,
) -> None:
    """A server that encrypts and asks who calls is reached with the flags, and not without."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    tls = [f"--tls-cert={certificates}/server.pem", f"--tls-key={certificates}/server.key"]
    server = start_server("--models", str(bundled_models), f"--auth-token-file={token}", *tls)
    reaches = ("--server", server.address, f"--tls-ca={certificates}/ca.pem")
    known = start_gateway(*reaches, f"--token-file={token}")
    unknown = start_gateway(*reaches)
    assert httpx.get(f"{known.address}/models").status_code == 200
    refused = httpx.get(f"{unknown.address}/models")
    assert (refused.status_code, "let this gateway in" in refused.json()["detail"]) == (502, True)


def test_a_wrong_flag_is_a_usage_error(certificates: Path, tmp_path: Path) -> None:
    """Exit code 2 and a sentence that says what is wrong."""
    (tmp_path / "token").touch()
    for flags, sentence in (
        (["--port", "99999"], "--port"),
        (["--timeout", "0"], "--timeout"),
        (["--tls-cert", f"{certificates}/client.pem"], "needs its key"),
        (["--token-file", f"{tmp_path}/token"], "one word of visible ASCII"),
    ):
        result = CliRunner().invoke(main, flags)
        assert (result.exit_code, sentence in result.output) == (2, True)


def test_a_port_that_is_taken_ends_it(project: Path) -> None:
    """It says so and fails."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = subprocess.run(
            [sys.executable, "-m", "gateway", "--port", port],
            cwd=project,
            capture_output=True,
            text=True,
        )
    assert process.returncode > 0
    assert "address already in use" in process.stderr
    assert "Traceback" not in process.stderr
