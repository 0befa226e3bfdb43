"""`python -m server.healthcheck`: exits 0 if the server beside it is SERVING, else 1 and says why.

For containers, which ask every few seconds and within the server's own limits. So it
speaks the little HTTP/2 that one call of `grpc.health.v1.Health/Check` takes: importing
gRPC would take six times as long and 27 MB more.

It reads the server's own variables: MNIST_SERVER_PORT or PORT, MNIST_SERVER_HOST,
MNIST_SERVER_TLS_CERT and MNIST_SERVER_TLS_KEY. What is set by a flag alone it cannot know.
"""

import os
import socket
import struct
import sys
from collections.abc import Iterator

SECONDS = 2.0
# The first field of HealthCheckResponse, a number, and what it says.
STATUSES = {b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}

# Frame types, flags and the preface: RFC 9113, sections 3.4 and 6.
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = struct.Struct(">IBI")  # length << 8 | type, flags, stream


def _text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


# RFC 7541: indices of its static table stand for two whole headers and three names.
REQUEST_HEADERS = b"".join(
    [
        b"\x83",  # :method POST
        b"\x86",  # :scheme http
        b"\x04" + _text("/grpc.health.v1.Health/Check"),  # :path
        b"\x01" + _text("localhost"),  # :authority
        b"\x0f\x10" + _text("application/grpc"),  # content-type
        b"\x00" + _text("te") + _text("trailers"),
    ]
)
# Not compressed, no bytes: a HealthCheckRequest for the whole server.
REQUEST = bytes(5)


def check() -> str:
    """Returns what the server says of itself: one of `STATUSES`.

    Raises:
        OSError: it cannot be reached, or does not answer in time.
        ValueError: it answers something else.
    """
    with _connect() as connection:
        connection.sendall(
            PREFACE
            + _frame(SETTINGS)
            + _frame(HEADERS, REQUEST_HEADERS, END_HEADERS, stream=1)
            + _frame(DATA, REQUEST, END_STREAM, stream=1)
        )
        answer = next((payload for kind, payload in _frames(connection) if kind == DATA), b"")
    if answer[5:] not in STATUSES:
        raise ValueError("it does not answer as grpc.health.v1.Health should")
    return STATUSES[answer[5:]]


def main() -> None:
    """Prints the status, or what is wrong, and ends the process."""
    try:
        status = check()
    except (OSError, ValueError) as error:
        sys.exit(f"No answer from the server: {error}.")
    print(status)  # noqa: T201 - `docker inspect` shows it
    sys.exit(status != "SERVING")


def _connect() -> socket.socket:
    host = os.environ.get("MNIST_SERVER_HOST") or "127.0.0.1"  # 0.0.0.0 leads here, too
    port = os.environ.get("MNIST_SERVER_PORT") or os.environ.get("PORT") or "50051"
    connection = socket.create_connection((host, int(port)), SECONDS)
    cert, key = (os.environ.get(f"MNIST_SERVER_TLS_{name}") for name in ("CERT", "KEY"))
    if not cert:
        return connection
    import ssl  # noqa: PLC0415 - takes as long to import as all the rest

    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    # The server asks itself: there is nobody to be deceived by...
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # ... and where it wants a certificate (--tls-client-ca), its own is all it has to show.
    context.load_cert_chain(cert, key)
    return context.wrap_socket(connection)


def _frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def _frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yields what comes, as kinds and payloads, until the server hangs up or ends the call."""
    with connection.makefile("rb") as stream:
        while len(head := stream.read(HEAD.size)) == HEAD.size:
            length_and_kind, flags, _ = HEAD.unpack(head)
            yield length_and_kind & 0xFF, stream.read(length_and_kind >> 8)
            if length_and_kind & 0xFF == HEADERS and flags & END_STREAM:
                return


if __name__ == "__main__":
    main()
