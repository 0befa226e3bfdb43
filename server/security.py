"""Who is at the other end: TLS certificates and bearer tokens, re-read when their files change."""

import hmac
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import structlog

from server.errors import StartError

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
        self._changed = self._last_change()
        try:
            self._configuration = self._read()
        except OSError as error:
            raise StartError(
                f"TLS cannot be set up ({error}): check --tls-cert, --tls-key and --tls-client-ca."
            ) from error

    def credentials(self) -> grpc.ServerCredentials:
        """Returns credentials that follow the files: gRPC asks again for each connection."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._renewed,  # type: ignore[arg-type] # may return None, which the stubs do not know
            require_client_authentication=self._client_ca is not None,
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns what has changed, or None; half-written files wait for the next connection."""
        try:
            changed = self._last_change()
            if changed == self._changed:
                return None
            configuration = self._read()
        except OSError as error:
            log.warning("certificates kept", reason=str(error))
            return None
        self._changed = changed
        log.info("certificates renewed")
        return configuration

    def _last_change(self) -> tuple[int, ...]:
        files = (self._cert, self._key, self._client_ca)
        return tuple(file.stat().st_mtime_ns for file in files if file)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        # Python's own TLS says clearly what is wrong; gRPC would only fail to serve.
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self._client_ca)
        context.load_cert_chain(self._cert, self._key)
        return grpc.ssl_server_certificate_configuration(
            [(self._key.read_bytes(), self._cert.read_bytes())],
            self._client_ca.read_bytes() if self._client_ca else None,
        )


class Tokens:
    """The bearer tokens that may call, one a line: two at once while one replaces the other.

    Args:
        file: where they stand; blank lines and lines with `#` in front do not count.

    Raises:
        StartError: the file cannot be read, or has no token.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._changed = file.stat().st_mtime_ns
            self._tokens = self._read()
        except OSError as error:
            raise StartError(
                f"Tokens cannot be read ({error}): check --auth-token-file."
            ) from error

    def refresh(self) -> None:
        """Reads the file again if it has changed; without a readable token the old ones stay."""
        try:
            changed = self._file.stat().st_mtime_ns
            if changed == self._changed:
                return
            self._changed = changed
            self._tokens = self._read()
        except (OSError, StartError) as error:
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
        lines = (line.strip() for line in self._file.read_bytes().splitlines())
        tokens = [line for line in lines if line and not line.startswith(b"#")]
        if not tokens:
            raise StartError(f"{self._file} has no token: write one a line.")
        return tokens


class TokenInterceptor(grpc.ServerInterceptor):
    """Lets in who shows a token; health stays open, since probes have none.

    Args:
        tokens: those that may call.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        # As a stream it ends calls of every kind, and before a request is read.
        self._refusal: Any = grpc.stream_stream_rpc_method_handler(
            lambda _, context: context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
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
        return self._refusal
