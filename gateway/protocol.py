"""HTTP/1.1 that is not held up, or filled up, by headers that never end."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 5.0
HEADER_BYTES = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's own, which waits for headers as long as they take, and keeps all of them."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Starts waiting for the first request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def on_message_begin(self) -> None:
        """Starts waiting for a request's headers."""
        super().on_message_begin()
        self._stop_waiting()
        self._wait_for_headers()

    def on_headers_complete(self) -> None:
        """Has them."""
        self._stop_waiting()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parses what came, and breaks off what is too long."""
        super().data_received(data)
        if self._waiting is not None:
            self._header_bytes += len(data)
            if self._header_bytes > HEADER_BYTES:
                self.send_400_response("The headers are too long.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    _waiting: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def _wait_for_headers(self) -> None:
        self._waiting = self.loop.call_later(HEADER_SECONDS, self.transport.close)
        self._header_bytes = 0

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
