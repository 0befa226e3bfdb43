"""Who is talked to, and who may call: TLS, client certificates and tokens, over real sockets."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from conftest import Server, StartServer, log_line, scrape, start_and_fail, until
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from client import TLS, AccessDenied, DigitClient, Health
from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub

REQUEST = pb.PredictRequest(pixels=np.zeros(784))
STREAM_REQUEST = pb.PredictStreamRequest(pixels=REQUEST.pixels)


def tls_flags(folder: Path) -> tuple[str, ...]:
    """The server's flags for the certificate `server` in a folder."""
    return ("--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key"))


def ask(address: str, certificates: Path, ca: str, client: str | None = None) -> grpc.StatusCode:
    """The code that one call on a new connection ends with, over nothing but gRPC."""
    names = (f"{ca}.pem", *((f"{client}.key", f"{client}.pem") if client else ()))
    files = ((certificates / name).read_bytes() for name in names)
    credentials = grpc.ssl_channel_credentials(*files)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options) as channel:
        code: grpc.StatusCode = PredictionServiceStub(channel).Predict.future(REQUEST).code()
        return code


@pytest.fixture(scope="module")
def encrypted(start_server: StartServer, bundled_models: Path, certificates: Path) -> Server:
    """A server with a certificate of `ca`."""
    return start_server("--models", str(bundled_models), *tls_flags(certificates))


def test_tls_answers_those_who_trust_it(encrypted: Server, certificates: Path) -> None:
    """The client and nothing but gRPC are answered over TLS."""
    with DigitClient(encrypted.address, tls=TLS(certificates / "ca.pem")) as client:
        assert client.health() is Health.SERVING
        assert client.predict(np.zeros((28, 28))).model == "digitnet"
    assert ask(encrypted.address, certificates, "ca") is grpc.StatusCode.OK


def test_another_authority_is_not_believed(encrypted: Server, certificates: Path) -> None:
    """Who trusts another authority, or speaks no TLS, has no connection."""
    assert ask(encrypted.address, certificates, "other") is grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(encrypted.address) as channel:
        assert with_header(channel) is grpc.StatusCode.UNAVAILABLE


def test_mtls_lets_in_the_right_certificate_alone(
    start_server: StartServer, bundled_models: Path, certificates: Path
) -> None:
    """No certificate and a foreign one have no connection, one of the authority is answered."""
    authority = ("--tls-client-ca", str(certificates / "ca.pem"))
    flags = ("--models", str(bundled_models), *tls_flags(certificates), *authority)
    address = start_server(*flags).address
    assert ask(address, certificates, "ca") is grpc.StatusCode.UNAVAILABLE
    assert ask(address, certificates, "ca", "stranger") is grpc.StatusCode.UNAVAILABLE
    assert ask(address, certificates, "ca", "client") is grpc.StatusCode.OK


def test_a_renewed_certificate_is_shown_to_new_connections(
    start_server: StartServer, bundled_models: Path, certificates: Path, tmp_path: Path
) -> None:
    """The server's files are replaced one by one: the old pair is shown until both are new."""
    folder = Path(shutil.copytree(certificates, tmp_path / "certificates"))
    server = start_server("--models", str(bundled_models), *tls_flags(folder))
    credentials = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes())
    with grpc.secure_channel(server.address, credentials) as channel:
        stub = PredictionServiceStub(channel)
        assert stub.Predict(REQUEST).model == "digitnet"
        shutil.copy(folder / "stranger.pem", folder / "server.pem")
        for _ in range(3):
            assert ask(server.address, folder, "ca") is grpc.StatusCode.OK
        assert server.log.read_text().count("certificates kept") == 1
        shutil.copy(folder / "stranger.key", folder / "server.key")
        assert ask(server.address, folder, "other") is grpc.StatusCode.OK
        assert ask(server.address, folder, "ca") is grpc.StatusCode.UNAVAILABLE
        assert server.log.read_text().count("certificates renewed") == 1
        assert stub.Predict(REQUEST).model == "digitnet"  # the connection from before


@pytest.mark.parametrize("name", ["server.pem", "server.key"])
def test_a_broken_renewal_keeps_the_certificate(
    start_server: StartServer,
    bundled_models: Path,
    certificates: Path,
    tmp_path: Path,
    name: str,
) -> None:
    """A file that holds something else, or is gone, is logged, and the old pair is shown."""
    folder = Path(shutil.copytree(certificates, tmp_path / "certificates"))
    server = start_server("--models", str(bundled_models), *tls_flags(folder))
    (folder / name).write_text("no certificate")
    assert ask(server.address, certificates, "ca") is grpc.StatusCode.OK
    assert server.log.read_text().count("certificates kept") == 1
    (folder / name).unlink()
    assert ask(server.address, certificates, "ca") is grpc.StatusCode.OK
    assert server.log.read_text().count("certificates kept") == 2
    shutil.copy(certificates / name, folder / name)
    assert ask(server.address, certificates, "ca") is grpc.StatusCode.OK
    assert server.log.read_text().count("certificates renewed") == 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--tls-cert server.pem", "--tls-cert and --tls-key need each other"),
        ("--tls-key server.key", "--tls-cert and --tls-key need each other"),
        ("--tls-client-ca ca.pem", "--tls-client-ca needs --tls-cert and --tls-key"),
        ("--auth-token-file tokens --host 0.0.0.0", "Tokens would cross the network in plaintext"),
        ("--auth-token-file tokens --host ::", "Tokens would cross the network in plaintext"),
        ("--tls-cert nowhere.pem --tls-key server.key", "'nowhere.pem' does not exist"),
    ],
)
def test_half_a_protection_is_a_usage_error(
    certificates: Path, tmp_path: Path, flags: str, sentence: str
) -> None:
    """Exit code 2 and a sentence: nobody believes to be protected who is not."""
    folder = shutil.copytree(certificates, tmp_path / "certificates")
    (folder / "tokens").write_text("secret\n")
    words = [str(folder / word) if (folder / word).exists() else word for word in flags.split()]
    code, said = start_and_fail(*words)
    assert code == 2
    assert sentence in " ".join(said.split())


NO_PAIR = "are not a certificate and its unencrypted key in PEM form: check --tls-cert"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("no certificate", NO_PAIR),
        ("no key", NO_PAIR),
        ("a key of another", NO_PAIR),
        ("an encrypted key", NO_PAIR),
        ("no authority", "ca.pem holds no certificates in PEM form: check --tls-client-ca"),
    ],
)
def test_files_that_do_not_protect_are_said(
    certificates: Path, tmp_path: Path, damage: str, sentence: str
) -> None:
    """Exit code 1 and a sentence that names the files, and nobody is asked for a passphrase."""
    folder = Path(shutil.copytree(certificates, tmp_path / "certificates"))
    match damage:
        case "no certificate":
            (folder / "server.pem").write_text("no certificate")
        case "no key":
            (folder / "server.key").write_text("no key")
        case "a key of another":
            shutil.copy(folder / "stranger.key", folder / "server.key")
        case "an encrypted key":
            header, rest = (folder / "server.key").read_text().split("\n", 1)
            encrypted = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC," + "00" * 16
            (folder / "server.key").write_text(f"{header}\n{encrypted}\n\n{rest}")
        case "no authority":
            (folder / "ca.pem").write_text("no certificate")
    authority = ("--tls-client-ca", str(folder / "ca.pem"))
    code, said = start_and_fail(*tls_flags(folder), *authority)
    assert code == 1
    assert sentence in said
    assert "pass phrase" not in said


TOKENS = "# rotated yearly\nfirst\n\nsecond\n"


@pytest.fixture(scope="module")
def guarded(
    start_server: StartServer, bundled_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """A server that wants one of two tokens, in plaintext on this machine."""
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text(TOKENS)
    flags = ("--models", str(bundled_models), "--metrics-port", "0")
    return start_server(*flags, "--auth-token-file", str(file))


@pytest.fixture
def channel(guarded: Server) -> Iterator[grpc.Channel]:
    """A channel to it."""
    with grpc.insecure_channel(guarded.address) as channel:
        yield channel


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A token file to be changed."""
    file = tmp_path / "tokens"
    file.write_text(TOKENS)
    return file


def with_header(channel: grpc.Channel, *values: str) -> grpc.StatusCode:
    """The code that a call ends with whose `authorization` is as given."""
    metadata = tuple(("authorization", value) for value in values)
    stub = PredictionServiceStub(channel)
    code: grpc.StatusCode = stub.Predict.future(REQUEST, metadata=metadata).code()
    return code


@pytest.mark.parametrize(
    "value", ["Bearer first", "Bearer second", "bearer first", "Bearer  first"]
)
def test_each_token_is_let_in(channel: grpc.Channel, value: str) -> None:
    """Two tokens hold at once, and the scheme's name has no case."""
    assert with_header(channel, value) is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "value",
    [
        *("", "first", "Basic first", "Bearer", "Bearer ", "Bearer wrong", "Bearer firs"),
        *("Bearer first second", "Bearer # rotated yearly"),
    ],
)
def test_a_wrong_token_is_not(channel: grpc.Channel, value: str) -> None:
    """What is no token, a part of one, or a token by another scheme is UNAUTHENTICATED."""
    assert with_header(channel, value) is grpc.StatusCode.UNAUTHENTICATED


def every_kind(channel: grpc.Channel) -> dict[str, Callable[..., Any]]:
    """A call of each kind but health, as a function of its metadata."""
    stub = PredictionServiceStub(channel)
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    unknown: Any = channel.unary_unary("/mnist.v1.PredictionService/Guess")
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    return {
        "unary": lambda **kw: stub.Predict(REQUEST, **kw),
        "stream": lambda **kw: next(stub.PredictStream(iter([STREAM_REQUEST]), **kw)),
        "listing": lambda **kw: stub.ListModels(pb.ListModelsRequest(), **kw),
        "reflection": lambda **kw: next(reflection.ServerReflectionInfo(iter([listing]), **kw)),
        "unknown": lambda **kw: unknown(b"", **kw),
    }


@pytest.mark.parametrize("kind", ["unary", "stream", "listing", "reflection"])
def test_calls_of_every_kind_need_a_token(channel: grpc.Channel, kind: str) -> None:
    """With one, each is answered; without one, it ends before its request is read."""
    call = every_kind(channel)[kind]
    assert call(metadata=[("authorization", "Bearer first")])
    with pytest.raises(grpc.RpcError, match="A valid token is needed") as caught:
        call()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_strangers_do_not_learn_what_there_is(channel: grpc.Channel) -> None:
    """A method that does not exist is UNAUTHENTICATED too, not UNIMPLEMENTED."""
    with pytest.raises(grpc.RpcError) as caught:
        every_kind(channel)["unknown"]()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_health_is_open_to_probes(channel: grpc.Channel) -> None:
    """Check and Watch answer without a token."""
    health = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest()
    assert health.Check(request).status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(request)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_strangers_are_counted(guarded: Server, channel: grpc.Channel) -> None:
    """Refused calls are one series, whatever methods strangers make up, and leave log lines."""
    refused = 'mnist_requests_total{code="UNAUTHENTICATED",method="other",model=""}'
    before = scrape(guarded).get(refused, 0)
    for call in every_kind(channel).values():
        with pytest.raises(grpc.RpcError):
            call()
    assert scrape(guarded)[refused] == before + 5
    assert "code=UNAUTHENTICATED" in log_line(guarded, "ServerReflectionInfo")


def test_tokens_are_rotated_by_rewriting_the_file(
    start_server: StartServer, bundled_models: Path, tokens: Path
) -> None:
    """A new token holds soon and the old one no longer; without a readable one the last hold."""
    flags = ("--models", str(bundled_models), "--auth-token-file", str(tokens))
    server = start_server(*flags)

    def rewrite(text: str) -> None:
        aside = tokens.with_name("aside")
        aside.write_text(text)
        aside.replace(tokens)

    with grpc.insecure_channel(server.address) as channel:
        rewrite("second\nthird\n")
        until(lambda: with_header(channel, "Bearer third") is grpc.StatusCode.OK)
        assert with_header(channel, "Bearer first") is grpc.StatusCode.UNAUTHENTICATED
        assert with_header(channel, "Bearer second") is grpc.StatusCode.OK
        rewrite("# none\n")
        until(lambda: "has no token" in server.log.read_text())
        assert with_header(channel, "Bearer third") is grpc.StatusCode.OK
        tokens.unlink()
        until(lambda: "cannot be read" in server.log.read_text())
        assert with_header(channel, "Bearer third") is grpc.StatusCode.OK
        rewrite("fourth\n")
        until(lambda: with_header(channel, "Bearer fourth") is grpc.StatusCode.OK)
    assert server.log.read_text().count("tokens kept") == 2


@pytest.mark.parametrize("text", ["", "# only a comment\n", "\n \n"])
def test_a_file_without_a_token_is_said(tokens: Path, text: str) -> None:
    """Exit code 1 and a sentence, rather than a server that lets in nobody or everybody."""
    tokens.write_text(text)
    code, said = start_and_fail("--auth-token-file", str(tokens))
    assert code == 1
    assert "has no token: write one a line" in said


def test_plaintext_tokens_can_be_asked_for(
    start_server: StartServer, bundled_models: Path, tokens: Path
) -> None:
    """With --allow-plaintext-tokens a server on all addresses starts, and asks for them."""
    flags = ("--models", str(bundled_models), "--auth-token-file", str(tokens))
    server = start_server(*flags, "--host", "0.0.0.0", "--allow-plaintext-tokens")  # noqa: S104 - what is tested
    port = server.address.rpartition(":")[2]
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        assert with_header(channel) is grpc.StatusCode.UNAUTHENTICATED
        assert with_header(channel, "Bearer first") is grpc.StatusCode.OK


def test_tokens_go_over_tls(
    start_server: StartServer, bundled_models: Path, certificates: Path, tokens: Path
) -> None:
    """Both protections together: the token as call credentials, as any gRPC client sends it."""
    flags = ("--models", str(bundled_models), "--auth-token-file", str(tokens))
    server = start_server(*flags, *tls_flags(certificates))
    tls = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())
    for token, expected in (
        ("first", grpc.StatusCode.OK),
        ("wrong", grpc.StatusCode.UNAUTHENTICATED),
    ):
        credentials = grpc.composite_channel_credentials(
            tls, grpc.access_token_call_credentials(token)
        )
        with grpc.secure_channel(server.address, credentials) as channel:
            assert PredictionServiceStub(channel).Predict.future(REQUEST).code() is expected
    with (
        DigitClient(server.address, tls=TLS(certificates / "ca.pem")) as client,
        pytest.raises(AccessDenied, match="A valid token is needed"),
    ):
        client.predict(np.zeros(784))
