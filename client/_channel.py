"""How the clients reach a server: addresses, TLS, retries, balancing."""

import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

# Predictions change nothing, so any call may be sent twice. The pauses grow from
# 0.1 s and add up to about 1.5 s: a worker that was killed is back by then.
# gRPC allows five attempts at most. A server may set the pause itself, by the
# trailer grpc-retry-pushback-ms.
# https://github.com/grpc/proposal/blob/master/A6-client-retries.md
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                # CANCELLED is what gRPC's servers end calls with that they have received,
                # but not looked at yet, when they stop.
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
            },
        }
    ],
}

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # What does not fit here is not retried; gRPC's 256 KiB hold 83 images.
    ("grpc.per_rpc_retry_buffer_size", 64 << 20),
    # gRPC's first pause between connection attempts is 1 s, as long as all retries together.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Its last is 120 s, for which callers would stay away from a server that is back.
    ("grpc.max_reconnect_backoff_ms", 5000),
    # A server that leaves makes gRPC look its name up again, but not within 30 s of the last
    # time: a rolling update has replaced all servers by then.
    ("grpc.dns_min_time_between_resolutions_ms", 500),
]


@dataclass(frozen=True, slots=True)
class TLS:
    """How to know the server, and how to be known to it: paths of PEM files.

    Attributes:
        ca: The certificates to trust; None for those that gRPC brings.
        cert: This client's certificate chain, for servers that ask (mTLS).
        key: The private key of `cert`.

    Raises:
        ValueError: One of `cert` and `key` is given without the other, or a file does not
            hold what it should.
        OSError: A file cannot be read.
    """

    ca: Path | str | None = None
    cert: Path | str | None = None
    key: Path | str | None = None

    def __post_init__(self) -> None:
        """Refuses what gRPC would only log, and then never connect."""
        if (self.cert is None) != (self.key is None):
            raise ValueError("A client certificate needs its key, and a key its certificate.")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except ssl.SSLError as error:
            raise ValueError(f"{self.ca} holds no certificates in PEM form.") from error
        try:
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key, password="")
        except ssl.SSLError as error:
            raise ValueError(
                f"{self.cert} and {self.key} are not a certificate and its unencrypted key in "
                "PEM form."
            ) from error

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files."""
        ca, key, cert = (
            Path(path).read_bytes() if path is not None else None
            for path in (self.ca, self.key, self.cert)
        )
        return grpc.ssl_channel_credentials(ca, key, cert)
