"""The command line of `python -m gateway`; every flag has a twin in the environment."""

import signal
import sys
from pathlib import Path

import click
import uvicorn
import uvloop

from client import TLS, AsyncDigitClient
from gateway.app import build
from gateway.protocol import BoundedProtocol

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
CONTEXT = {
    "auto_envvar_prefix": "MNIST_GATEWAY",
    "help_option_names": ["-h", "--help"],
    "show_default": True,
}
# What answers under way may take after SIGTERM; `docker stop` kills after ten seconds.
DRAIN_SECONDS = 8


@click.command(context_settings=CONTEXT)
@click.option(
    "--host",
    default="127.0.0.1",
    help="Address to listen on: 0.0.0.0 reaches other machines, and lets them reach you.",
)
@click.option(
    "--port",
    default=8015,
    type=click.IntRange(0, 65535),
    envvar=["MNIST_GATEWAY_PORT", "PORT"],  # the second as hosting platforms set it
    help="Port to listen on; 0 takes a free one and the log says which.",
)
@click.option(
    "--server",
    default="localhost:50051",
    metavar="HOST:PORT",
    help="The server behind; dns:///HOST:PORT spreads calls over all its addresses.",
)
@click.option(
    "--timeout",
    default=5.0,
    type=click.FloatRange(0, min_open=True),
    help="Seconds that a request may take: longer rides out a restart of the server, shorter "
    "says sooner that it is gone.",
)
@click.option("--tls-ca", type=FILE, help="PEM certificates to trust the server by; encrypts.")
@click.option("--tls-cert", type=FILE, help="PEM certificate for a server that asks; encrypts.")
@click.option("--tls-key", type=FILE, help="PEM private key of --tls-cert.")
@click.option(
    "--token-file",
    type=FILE,
    help="File with the token for a server that asks: then whoever reaches the gateway may "
    "what the gateway may.",
)
def main(
    *,
    host: str,
    port: int,
    server: str,
    timeout: float,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    token_file: Path | None,
) -> None:
    """Answer HTTP, and show a page to draw a digit on, with what --server says.

    Each flag can be set in the environment too: --server is MNIST_GATEWAY_SERVER.
    """

    async def serve() -> None:
        async with AsyncDigitClient(server, timeout=timeout, tls=tls, token=token) as client:
            config = uvicorn.Config(
                build(client, timeout),
                host=host,
                port=port,
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                proxy_headers=False,  # nobody asks who the caller is
                access_log=False,  # the server logs each call, by the request's id
                server_header=False,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
            await uvicorn.Server(config).serve()

    try:
        tls = TLS(tls_ca, tls_cert, tls_key) if tls_ca or tls_cert or tls_key else None
        token = token_file.read_text(errors="replace").strip() if token_file else None
        # Uvicorn sends itself the signal again that it has left by.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit())
        uvloop.run(serve())
    except ValueError as error:
        raise click.UsageError(str(error)) from error


for _option in main.params:
    _option.show_envvar = True  # type: ignore[attr-defined] # all of them are options
