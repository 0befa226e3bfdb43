"""Around every request: its id, the headers that browsers are held to, its metrics."""

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import metrics

# What goes into a log line, and through gRPC's metadata.
_REQUEST_ID = re.compile(rb"[\w.:/+=@-]{1,64}")
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

# Nothing comes from elsewhere, nothing goes elsewhere, nobody frames it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"cache-control", b"no-cache"),  # so that a page's parts are always of one version
    (b"content-security-policy", _POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]

log = logging.getLogger("uvicorn.error")


class Edge:
    """The outermost ASGI application.

    Args:
        app: what answers; it finds the request's id and trace in `request.state`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        started = time.perf_counter()
        request_id = _header(scope, b"x-request-id", _REQUEST_ID) or secrets.token_hex(8)
        scope["state"] = {
            "request_id": request_id,
            "traceparent": _header(scope, b"traceparent", _TRACEPARENT),
        }
        headers = [*_HEADERS, (b"x-request-id", request_id.encode())]
        status = 0

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        with metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, send_more)
            except Exception:  # the app has answered it already
                log.exception("request %s failed", request_id)
        path = getattr(scope.get("route"), "path", "other")
        metrics.requests.labels(path, status).inc()
        metrics.request_seconds.labels(path).observe(time.perf_counter() - started)


def metadata(request_id: str, traceparent: str) -> dict[str, str]:
    """Returns what the server is told beside a call: how to call it in its log, and its trace."""
    return {"x-request-id": request_id} | ({"traceparent": traceparent} if traceparent else {})


def _header(scope: Scope, name: bytes, form: re.Pattern[bytes]) -> str:
    """Returns a header's value; empty where there is none of that form."""
    given: bytes = next((value for key, value in scope["headers"] if key == name), b"")
    return given.decode() if form.fullmatch(given) else ""
