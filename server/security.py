"""Who is at the other end: TLS certificates and bearer tokens, re-read when their files change."""

import hmac
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import structlog

from server import metrics
from server.calls import Call
from server.errors import StartError
from server.fingerprint import Fingerprint, fingerprint

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED

log = structlog.get_logger()


class Certificates:
    """The server's certificate, its key, and the CA that clients must show a certificate of.

    Args:
        cert: PEM certificate chain.
        key: PEM private key of `cert`.
        client_ca: PEM certificates of who may call (mTLS), or None for anyone.

    Raises:
        StartError: a file cannot be read, or they do not belong together.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._current = self._refused = self._fingerprints()
        self._configuration = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Returns credentials that follow the files: gRPC asks again for each connection."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._renewed,  # type: ignore[arg-type] # may return None, which the stubs do not know
            require_client_authentication=self._client_ca is not None,
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns what has changed, or None; half-written files wait for the next connection."""
        changed = self._fingerprints()
        if changed == self._current:
            return None
        try:
            configuration = self._read()
        except StartError as error:
            if changed != self._refused:  # said once, not for each connection
                self._refused = changed
                log.warning("certificates kept", reason=str(error))
            return None
        self._current = changed
        log.info("certificates renewed")
        return configuration

    def _fingerprints(self) -> list[Fingerprint]:
        return [fingerprint(file) for file in (self._cert, self._key, self._client_ca) if file]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        try:
            cert, key = self._cert.read_bytes(), self._key.read_bytes()
            client_ca = self._client_ca.read_bytes() if self._client_ca else None
        except OSError as error:
            raise StartError(
                f"{error.filename} cannot be read ({error.strerror}): check --tls-cert, --tls-key "
                "and --tls-client-ca."
            ) from error
        # Python's own TLS says what is wrong; gRPC would only fail to serve.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # An empty password, or OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(self._cert, self._key, password="")
        except OSError as error:
            raise StartError(
                f"{self._cert} and {self._key} are not a certificate and its unencrypted key in "
                "PEM form: check --tls-cert and --tls-key."
            ) from error
        try:
            if self._client_ca:
                context.load_verify_locations(self._client_ca)
        except OSError as error:
            raise StartError(
                f"{self._client_ca} holds no certificates in PEM form: check --tls-client-ca."
            ) from error
        return grpc.ssl_server_certificate_configuration([(key, cert)], client_ca)


class Tokens:
    """The bearer tokens that may call, one a line: two at once while one replaces the other.

    Args:
        file: where they stand; blank lines and lines with `#` in front do not count.

    Raises:
        StartError: the file cannot be read, or has no token.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._current = fingerprint(file)
        self._tokens = self._read()

    def refresh(self) -> None:
        """Reads the file again if it has changed; without a readable token the old ones stay."""
        changed = fingerprint(self._file)
        if changed == self._current:
            return
        self._current = changed
        try:
            self._tokens = self._read()
        except StartError as error:
            log.warning("tokens kept", reason=str(error))
        else:
            log.info("tokens renewed", count=len(self._tokens))

    def admit(self, authorization: str) -> bool:
        """Whether an `authorization` header carries one of the tokens, in constant time."""
        scheme, _, given = authorization.partition(" ")
        token = given.strip().encode()
        # All of them, so that the time does not tell which one was close.
        matches = [hmac.compare_digest(token, expected) for expected in self._tokens]
        return scheme.lower() == "bearer" and any(matches)

    def _read(self) -> list[bytes]:
        try:
            lines = [line.strip() for line in self._file.read_bytes().splitlines()]
        except OSError as error:
            raise StartError(
                f"{self._file} cannot be read ({error.strerror}): check --auth-token-file."
            ) from error
        tokens = [line for line in lines if line and not line.startswith(b"#")]
        if not tokens:
            raise StartError(f"{self._file} has no token: write one a line.")
        return tokens


class TokenInterceptor(grpc.ServerInterceptor):
    """Lets in who shows a token; health stays open, since probes have none.

    Args:
        tokens: those that may call.
        access_log: gets each call that is refused.
    """

    def __init__(self, tokens: Tokens, access_log: Callable[[Call], None]) -> None:
        self._tokens = tokens
        self._access_log = access_log
        # As a stream it ends calls of every kind, and before a request is read.
        self._refusal: Any = grpc.stream_stream_rpc_method_handler(
            lambda _, context: context.abort(
                UNAUTHENTICATED,
                "A valid token is needed: send the metadata `authorization: Bearer TOKEN`.",
            )
        )

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Passes the call on, or ends it with UNAUTHENTICATED."""
        if handler_call_details.method.startswith("/grpc.health.v1.Health/"):
            return continuation(handler_call_details)
        metadata = dict(handler_call_details.invocation_metadata)
        if self._tokens.admit(str(metadata.get("authorization", ""))):
            return continuation(handler_call_details)
        # One series for all: the names of methods that strangers make up have no end.
        metrics.requests.labels("other", "", UNAUTHENTICATED.name).inc()
        method, given = handler_call_details.method, handler_call_details.invocation_metadata
        self._access_log(Call(method, given, UNAUTHENTICATED.name))
        return self._refusal
