"""Every flag of the server has a help sentence and a twin in the environment that works."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import grpc
import pytest

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub
from server.cli import main

OPTIONS = [
    option for option in main.params if isinstance(option, click.Option) and not option.hidden
]


@pytest.mark.parametrize("option", OPTIONS, ids=[option.opts[0] for option in OPTIONS])
def test_every_flag_reads_its_twin(option: click.Option) -> None:
    """--max-batch is MNIST_SERVER_MAX_BATCH, and so on."""
    assert option.help
    twin = f"MNIST_SERVER_{option.opts[0].removeprefix('--').replace('-', '_').upper()}"
    context = click.Context(main, auto_envvar_prefix="MNIST_SERVER")
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("PORT", raising=False)
        assert option.resolve_envvar_value(context) is None
        environment.setenv(twin, "7")
        assert option.resolve_envvar_value(context) == "7"


def test_the_environment_is_obeyed(start_server: Any, bundled_models: Path) -> None:
    """A server that is told everything by its environment does as it is told."""
    server = start_server(
        env={"MNIST_SERVER_MODELS": str(bundled_models), "MNIST_SERVER_MAX_BATCH": "3"}
    )
    with grpc.insecure_channel(server.address) as channel:
        stub = PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="at most 3"):
            stub.PredictBatch(pb.PredictBatchRequest(pixels=[0.0] * 4 * 784))


def test_the_port_may_be_said_as_hosting_platforms_do() -> None:
    """PORT names it where MNIST_SERVER_PORT does not."""
    option = next(option for option in OPTIONS if option.name == "port")
    context = click.Context(main, auto_envvar_prefix="MNIST_SERVER")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PORT", "8080")
        assert option.resolve_envvar_value(context) == "8080"
        environment.setenv("MNIST_SERVER_PORT", "7")
        assert option.resolve_envvar_value(context) == "7"


@pytest.mark.parametrize(
    "flags",
    [
        ("--port", "99999"),
        ("--max-batch", "0"),
        ("--workers", "-1"),
        ("--log-format", "xml"),
    ],
)
def test_a_wrong_flag_is_a_usage_error(project: Path, flags: tuple[str, str]) -> None:
    """Exit code 2 and a sentence that names the flag."""
    process = subprocess.run(
        [sys.executable, "-m", "server", *flags], cwd=project, capture_output=True, text=True
    )
    assert process.returncode == 2
    assert flags[0] in process.stderr
    assert "Traceback" not in process.stderr


def test_json_logs_are_json(start_server: Any, bundled_models: Path) -> None:
    """With --log-format json each line of the log is one object."""
    server = start_server("--models", str(bundled_models), "--log-format", "json")
    server.stop()
    events = [json.loads(line)["event"] for line in server.log.read_text().splitlines()]
    assert events == ["model loaded", "listening", "serving", "draining", "stopped"]
