"""What all commands share: how to reach the server, and how to say what went wrong."""

import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from client import TLS, AccessDenied, ClientError, DeadlineExceeded, DigitClient, Unavailable
from client.mnist import CHOICES, Dataset, DatasetError, load

INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

# gRPC tells a port where nothing listens from a server that breaks off by its text only.
_NOBODY_THERE = "Connection refused"


class Failure(click.ClickException):
    """Ends a command with one sentence: something was refused, or the answer is bad."""

    exit_code = 1


class Unreachable(Failure):
    """Ends a command with one sentence: there is no server, or it does not answer."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Connection:
    """The server that a command asks."""

    server: str
    timeout: float
    tls: TLS | None
    token: str | None

    @contextmanager
    def client(self) -> Iterator[DigitClient]:
        """Connects, and turns what goes wrong meanwhile into a `Failure`."""
        try:
            client = DigitClient(self.server, timeout=self.timeout, tls=self.tls, token=self.token)
        except ValueError as error:
            raise click.UsageError(f"--token-file: {error}") from error
        try:
            with client:
                yield client
        except ClientError as error:
            raise self._failure(error) from error

    def _failure(self, error: ClientError) -> Failure:
        match error:
            case DeadlineExceeded():
                return Unreachable(
                    f"{self.server} gave no answer within {self.timeout:g} s: look at the server, "
                    "or allow more with --timeout."
                )
            case Unavailable() if _NOBODY_THERE in error.details and self.tls is None:
                return Unreachable(
                    f"No server answers at {self.server}: start one with `make serve`, or name "
                    "another with --server."
                )
            case Unavailable():
                return Unreachable(
                    f"{self.server} is not available ({error}): check the address, or try again "
                    "later."
                )
            case AccessDenied():
                return Failure(
                    f"{self.server} does not let this caller in ({error}): name a file with a "
                    "token that it knows with --token-file."
                )
            case _:
                return Failure(str(error))


def connection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that reach a server, and passes a `Connection` in their place."""

    @click.option(
        "--server",
        default="localhost:50051",
        show_default=True,
        envvar="MNIST_CLIENT_SERVER",
        show_envvar=True,
        metavar="HOST:PORT",
        help="The server; dns:///HOST:PORT spreads calls over all its addresses.",
    )
    @click.option(
        "--timeout",
        default=5.0,
        show_default=True,
        type=click.FloatRange(0, min_open=True),
        envvar="MNIST_CLIENT_TIMEOUT",
        show_envvar=True,
        help="Seconds that one call may take, retries included.",
    )
    @click.option(
        "--tls-ca",
        type=_FILE,
        envvar="MNIST_CLIENT_TLS_CA",
        show_envvar=True,
        help="PEM file of the certificates to trust; turns TLS on.",
    )
    @click.option(
        "--tls-cert",
        type=_FILE,
        envvar="MNIST_CLIENT_TLS_CERT",
        show_envvar=True,
        help="PEM file of this client's certificate, for servers that ask; turns TLS on.",
    )
    @click.option(
        "--tls-key",
        type=_FILE,
        envvar="MNIST_CLIENT_TLS_KEY",
        show_envvar=True,
        help="PEM file of the certificate's key.",
    )
    @click.option(
        "--token-file",
        type=_FILE,
        envvar="MNIST_CLIENT_TOKEN_FILE",
        show_envvar=True,
        help="File with the token of this client, for servers that ask.",
    )
    @functools.wraps(command)
    def connected(
        *,
        server: str,
        timeout: float,
        tls_ca: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        token_file: Path | None,
        **options: Any,
    ) -> None:
        try:
            tls = TLS(tls_ca, tls_cert, tls_key) if tls_ca or tls_cert or tls_key else None
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        try:
            token = token_file.read_text(errors="replace").strip() if token_file else None
            command(connection=Connection(server, timeout, tls, token), **options)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except DatasetError as error:
            raise Failure(str(error)) from error
        except OSError as error:
            raise Failure(f"{error.filename}: {error.strerror}.") from error

    return connected


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that choose a model."""
    command = click.option(
        "--version",
        default=0,
        type=click.IntRange(0),
        envvar="MNIST_CLIENT_VERSION",
        show_envvar=True,
        help="The model's version; the newest that is ready if not given.",
    )(command)
    return click.option(
        "--model",
        default="",
        envvar="MNIST_CLIENT_MODEL",
        show_envvar=True,
        help="The model that answers; the server's default if not given.",
    )(command)


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that choose a data set."""
    command = click.option(
        "--data",
        default="data",
        show_default=True,
        type=click.Path(path_type=Path),
        help="Folder of the data sets.",
    )(command)
    return click.option(
        "--dataset",
        default="auto",
        show_default=True,
        type=click.Choice(CHOICES),
        help="Whose test images: MNIST's, or the embedded digits; auto takes MNIST if it is here.",
    )(command)


def load_dataset(choice: str, data: Path) -> Dataset:
    """Reads a data set, and warns where `auto` had to fall back on the digits."""
    dataset = load(choice, data)
    if choice == "auto" and dataset.name != "mnist":
        click.echo("Warning: MNIST is not here; these are the embedded digits.", err=True)
    return dataset


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def print_json(answer: Mapping[str, Any]) -> None:
    """Prints what a script reads."""
    click.echo(json.dumps(answer))
