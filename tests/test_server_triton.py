"""Triton's own client, unchanged, against our server: tests/triton_calls.py makes the calls."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto

from proto.inference import grpc_service_pb2

DESCRIPTORS = """
from tritonclient.grpc import model_config_pb2, service_pb2
for module in (service_pb2, model_config_pb2):
    print(module.DESCRIPTOR.serialized_pb.hex())
"""

Run = Callable[..., str]


@pytest.fixture(scope="session")
def run(project: Path) -> Run:
    """Runs Python where Triton's client is; skips where there is none, fails in CI."""
    python = project / ".venv/triton/bin/python"
    if not python.exists():
        reason = "Triton's client is not here: `make test` installs it"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)

    def run(*arguments: str) -> str:
        process = subprocess.run(
            [python, *arguments], cwd=project, capture_output=True, text=True, timeout=60
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    return run


@pytest.mark.parametrize(
    "name",
    [
        "live",
        "metadata",
        "config",
        "infer_raw",
        "infer_typed",
        "infer_chosen",
        "async_infer",
        "stream_infer",
        "statistics",
        "index",
        "errors",
    ],
)
def test_the_client_finds_what_it_expects(run: Run, server: Any, name: str) -> None:
    """What the client offers works as with Triton."""
    run("tests/triton_calls.py", name, server.address)


def test_the_client_unloads_and_loads(
    run: Run, start_server: Callable[..., Any], bundled_models: Path
) -> None:
    """With --allow-model-control the client says which models answer."""
    server = start_server("--models", str(bundled_models), "--allow-model-control")
    run("tests/triton_calls.py", "control", server.address)


def test_the_pages_example_runs(run: Run, server: Any, project: Path) -> None:
    """What docs/ shows to those who come from Triton is what they get."""
    page = (project / "docs/coming-from-triton-or-kserve.md").read_text()
    example = page.split("```python\n")[1].split("```")[0]
    assert "localhost:50051" in example
    printed = run("-c", example.replace("localhost:50051", server.address))
    assert re.fullmatch(r"\[\d \d\] \[0\.\d+ 0\.\d+\]\n", printed)


def test_names_and_numbers_are_the_protocols(run: Run) -> None:
    """Each message, field, enum value and rpc of ours is Triton's, to the number and the type."""
    theirs = FileDescriptorProto()
    for line in run("-c", DESCRIPTORS).splitlines():
        theirs.MergeFromString(bytes.fromhex(line))
    ours = FileDescriptorProto()
    grpc_service_pb2.DESCRIPTOR.CopyToProto(ours)
    assert ours.package == theirs.package
    assert set(_facts(ours)) <= set(_facts(theirs))


def _facts(file: FileDescriptorProto) -> Iterator[tuple[object, ...]]:
    for service in file.service:
        for rpc in service.method:
            streams = rpc.client_streaming, rpc.server_streaming
            yield "rpc", service.name, rpc.name, rpc.input_type, rpc.output_type, streams
    for message in file.message_type:
        yield from _message_facts(message, "")
    for enum in file.enum_type:
        yield from _enum_facts(enum, "")


def _message_facts(message: DescriptorProto, parent: str) -> Iterator[tuple[object, ...]]:
    name = f"{parent}.{message.name}"
    yield "message", name
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        kind = (field.type, field.type_name, field.label, oneof)
        yield "field", name, field.name, field.number, kind
    for nested in message.nested_type:
        yield from _message_facts(nested, name)
    for enum in message.enum_type:
        yield from _enum_facts(enum, name)


def _enum_facts(enum: EnumDescriptorProto, parent: str) -> Iterator[tuple[object, ...]]:
    for value in enum.value:
        yield "value", f"{parent}.{enum.name}", value.name, value.number
