"""`models` and `health`."""

from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from client import Health, NotFound
from client.cli.connection import (
    Connection,
    Failure,
    Unreachable,
    connection_options,
    json_option,
    print_json,
)


@click.command()
@connection_options
@json_option
def models(connection: Connection, *, as_json: bool) -> None:
    """List the models that the server knows.

    The JSON object has `models`, a list with one object for each version, whose keys
    are the fields of the service's message `Model`; `created` is an ISO 8601 time.
    """
    with connection.client() as client:
        found = client.models()
    if as_json:
        created = {model: model.created and model.created.isoformat() for model in found}
        print_json({"models": [asdict(model) | {"created": created[model]} for model in found]})
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "version", "", "parameters", "trained on", "test accuracy", "created"):
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
    for model in found:
        state = "default" if model.default else "ready" if model.ready else "not ready"
        table.add_row(
            model.name,
            str(model.version),
            state,
            f"{model.parameters:,}" if model.ready else "",
            model.dataset,
            f"{model.test_accuracy:.2%}" if model.ready else "",
            f"{model.created:%Y-%m-%d}" if model.created else "",
        )
    Console().print(table)


_NUMBERS = ("version", "parameters", "test accuracy")


@click.command()
@connection_options
@click.option("--model", default="", help="Ask about this model; about the whole server if not.")
@json_option
def health(connection: Connection, *, model: str, as_json: bool) -> None:
    """Say whether the server answers requests.

    Exits with 0 if it is SERVING, else with 3. The JSON object has `server`, `model`
    and `status`.
    """
    with connection.client() as client:
        try:
            status = client.health(f"models/{model}" if model else "")
        except NotFound as error:
            raise Failure(f"{connection.server} has no model {model!r}.") from error
    if as_json:
        print_json({"server": connection.server, "model": model, "status": status})
    else:
        click.echo(status)
    if status is not Health.SERVING:
        raise click.exceptions.Exit(Unreachable.exit_code)
