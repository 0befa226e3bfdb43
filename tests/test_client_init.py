"""The library's public face is complete, light, and drawn as it is."""

import inspect
import pickle
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import grpc
import pytest

import client
from proto.mnist.v1 import prediction_service_pb2 as pb


def test_all_names_everything_public() -> None:
    """What is imported without an underscore is exported, and nothing else is."""
    imported = {
        name
        for name, value in vars(client).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert imported == set(client.__all__)


def test_errors_are_named_as_they_are_imported() -> None:
    """A trace says client.InvalidInput, which is what a caller would write."""
    assert {getattr(client, name).__module__ for name in client.__all__} == {"client"}


def test_the_tree_is_drawn_whole() -> None:
    """The docstring beside the errors shows each of them."""
    drawing = sys.modules["client._errors"].__doc__
    assert drawing is not None
    errors: list[type] = [client.ClientError, *client.ClientError.__subclasses__()]
    for error in errors:
        assert f" {error.__name__} " in drawing.replace("\n", " ")


def test_the_library_is_light(project: Path) -> None:
    """Importing it brings gRPC and numpy, and nothing of what only the commands need."""
    code = "import sys, client; print(*sys.modules)"
    output = subprocess.check_output([sys.executable, "-c", code], cwd=project, text=True)
    roots = {name.partition(".")[0] for name in output.split()}
    assert roots.isdisjoint({"PIL", "rich", "matplotlib", "click", "torch", "server", "training"})


def test_a_model_has_every_field_of_the_wire() -> None:
    """Nothing that ListModels says is lost."""
    assert [field.name for field in fields(client.Model)] == list(
        pb.Model.DESCRIPTOR.fields_by_name
    )


@pytest.mark.parametrize(
    "error",
    [
        client.InvalidInput("no", violations=(client.FieldViolation("pixels", "no"),)),
        client.Overloaded("later", retry_after=0.5),
        client.ServerError("oh", code=grpc.StatusCode.INTERNAL, request_id="7"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: client.ClientError) -> None:
    """An error that crosses into another process keeps all it knows."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(copy), copy.args, vars(copy)) == (type(error), error.args, vars(error))


def test_half_a_client_certificate_is_refused(tmp_path: Path) -> None:
    """A certificate without its key, or the other way round, can never work."""
    with pytest.raises(ValueError, match="needs its key"):
        client.TLS(cert=tmp_path / "cert.pem")
    with pytest.raises(ValueError, match="needs its key"):
        client.TLS(key=tmp_path / "key.pem")


def test_files_without_certificates_are_refused(tmp_path: Path) -> None:
    """What gRPC would only log is an error that names the file."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(ValueError, match=r"ca\.pem holds no certificates"):
        client.TLS(ca=file)
    with pytest.raises(ValueError, match="not a certificate and its unencrypted key"):
        client.TLS(cert=file, key=file)
    with pytest.raises(FileNotFoundError):
        client.TLS(ca=tmp_path / "nowhere.pem")
