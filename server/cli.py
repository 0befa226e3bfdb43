"""The command line of `python -m server`; every flag has a twin in the environment."""

import ipaddress
from pathlib import Path
from typing import Any

import click

from server import cpus, exporter, logs, signals, threads
from server.config import ENVIRONMENT_PREFIX, Config
from server.errors import StartError

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
CONTEXT = {
    "auto_envvar_prefix": ENVIRONMENT_PREFIX,
    "help_option_names": ["-h", "--help"],
    "show_default": True,
}


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
    envvar=[f"{ENVIRONMENT_PREFIX}_PORT", "PORT"],  # the second as hosting platforms set it
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
    help="Model that answers requests which name none.",
)
@click.option(
    "--allow-model-control",
    is_flag=True,
    help="Let callers load and unload models, as Triton's clients can: whoever may call may then "
    "take any model away. Needs --workers 1, since such a call reaches one worker only.",
)
@click.option(
    "--workers",
    default=1,
    type=click.IntRange(0, 256),
    help="Processes that share the port, 0 for one per CPU that may be used here: more for more "
    "calls a second, each with its own copy of the models.",
)
@click.option(
    "--max-batch",
    default=256,
    type=click.IntRange(1, 4096),
    help="Most images in one call and in one run: more for callers with many, fewer so that "
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
@click.option("--tls-cert", type=FILE, help="PEM certificate chain; encrypts, with --tls-key.")
@click.option("--tls-key", type=FILE, help="PEM private key of --tls-cert.")
@click.option(
    "--tls-client-ca",
    type=FILE,
    help="PEM certificates of an authority; only callers with a certificate of it are let in.",
)
@click.option(
    "--auth-token-file",
    type=FILE,
    help="File with one token a line; only callers with one of them are let in. Health stays open.",
)
@click.option(
    "--allow-plaintext-tokens",
    is_flag=True,
    help="Take tokens over the network without TLS: for networks that encrypt by themselves.",
)
@click.option(
    "--max-connection-age",
    default=300.0,
    type=click.FloatRange(0, 86_400),
    help="Seconds after which a connection is asked to come again, 0 for never: shorter spreads "
    "callers over new servers sooner, longer reconnects less.",
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
@click.option("--worker", is_flag=True, hidden=True, help="Be one of the supervisor's workers.")
def main(*, worker: bool, **flags: Any) -> None:
    """Serve the models under --models over gRPC.

    Each flag can be set in the environment too: --max-batch is MNIST_SERVER_MAX_BATCH.
    """
    config = Config(**flags | {"workers": flags["workers"] or cpus.available()})
    _refuse_what_does_not_fit(config)
    logs.configure(config.log_format)
    try:
        _run(config, worker=worker)
    except StartError as error:
        raise click.ClickException(str(error)) from error


for _option in main.params:
    _option.show_envvar = True  # type: ignore[attr-defined] # all of them are options


def _run(config: Config, *, worker: bool) -> None:
    # Imported where they are needed: the supervisor does without gRPC and onnxruntime.
    if config.workers > 1 and not worker:
        from server import supervisor  # noqa: PLC0415 - see above

        supervisor.run(config)
        return
    signals.hold()
    threads.prefer_throughput()
    if worker:
        from server import worker as server  # noqa: PLC0415 - see above

        server.run(config)
    else:
        from server.app import App  # noqa: PLC0415 - see above

        app = App(config)
        if config.metrics_port is not None:
            exporter.start(config.host, config.metrics_port)
        app.run()


def _refuse_what_does_not_fit(config: Config) -> None:
    if (config.tls_cert is None) != (config.tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key need each other: give both or none.")
    if config.allow_model_control and config.workers > 1:
        raise click.UsageError(
            f"--allow-model-control needs one worker, not {config.workers}: a call reaches one of "
            "them only, and they would disagree on what is loaded. Leave one of the two flags out; "
            "what is put into --models or taken out of it reaches all workers."
        )
    if config.tls_client_ca and not config.tls_cert:
        raise click.UsageError("--tls-client-ca needs --tls-cert and --tls-key.")
    if (
        config.auth_token_file
        and not config.tls_cert
        and not config.allow_plaintext_tokens
        and not _is_loopback(config.host)
    ):
        raise click.UsageError(
            f"Tokens would cross the network in plaintext on {config.host}: give --tls-cert and "
            "--tls-key, or --allow-plaintext-tokens where something else encrypts."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
