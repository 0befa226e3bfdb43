"""The command line of `python -m server`; every flag has a twin in the environment."""

from pathlib import Path
from typing import Any

import click

from server import app, logs
from server.config import Config
from server.repository import NAME

CONTEXT = {
    "auto_envvar_prefix": "MNIST_SERVER",
    "help_option_names": ["-h", "--help"],
    "show_default": True,
}


def _name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not NAME.fullmatch(value):
        raise click.BadParameter("a name has letters, digits, '.', '_' and '-' only.")
    return value


@click.command(context_settings=CONTEXT)
@click.option(
    "--host",
    default="127.0.0.1",
    help="Address to listen on: 0.0.0.0 reaches other machines, and lets them reach you.",
)
@click.option(
    "--port",
    default=50051,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one and the log says which.",
)
@click.option(
    "--models",
    default=Path("models"),
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of <name>/<version>/ to serve; every version takes a few MB of memory.",
)
@click.option(
    "--default-model",
    default="digitnet",
    callback=_name,
    help="Model that answers requests which name none.",
)
@click.option(
    "--max-batch",
    default=256,
    type=click.IntRange(1, 4096),
    help="Most images in one run and in one PredictBatch: more for throughput, fewer so that "
    "a lone call never waits long behind a big one.",
)
@click.option(
    "--max-queue",
    default=256,
    type=click.IntRange(1, 4096),
    help="Most calls that wait for a model: more rides out bursts, fewer refuses early and keeps "
    "latency short. Each costs a thread.",
)
@click.option(
    "--intra-op-threads",
    default=1,
    type=click.IntRange(1, 256),
    help="onnxruntime's threads for one run: more speeds up large batches, one leaves the other "
    "cores to other calls.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Port for Prometheus to scrape /metrics, 0 for a free one; none by default, since it asks "
    "nobody for a password.",
)
@click.option(
    "--drain-seconds",
    default=10.0,
    type=click.FloatRange(0),
    help="How long accepted calls may take to finish after SIGTERM: longer loses fewer, "
    "shorter restarts sooner.",
)
@click.option(
    "--log-format",
    default="console",
    type=click.Choice(["console", "json"]),
    help="Logs for people or for machines.",
)
def main(**flags: Any) -> None:
    """Serve the models under --models over gRPC.

    Each flag can be set in the environment too: --max-batch is MNIST_SERVER_MAX_BATCH.
    """
    config = Config(**flags)
    logs.configure(config.log_format)
    try:
        app.App(config).run()
    except app.StartError as error:
        raise click.ClickException(str(error)) from error
