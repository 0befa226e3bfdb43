"""The commands of `python -m client`."""

import click

from client.cli.evaluate import evaluate
from client.cli.predict import predict
from client.cli.status import health, models


@click.group(
    epilog="Exit codes: 0 fine; 1 the request or its input was refused, or the answer is bad; "
    "2 the command was called wrongly; 3 no server answered, in time or at all, or it is not "
    "serving; 130 it was interrupted.",
    context_settings={"max_content_width": 100},
)
def main() -> None:
    """Ask a server about handwritten digits.

    Every command prints for people, or with --json one JSON object for scripts.
    """


for _command in (predict, evaluate, models, health):
    main.add_command(_command)
