"""What can go wrong, as one tree.

```
ClientError
├── InvalidInput       what was sent is wrong; `violations` says which field and what to do
├── NotFound           no such model, version or service
├── AccessDenied       the server knows no such caller, or does not let it in
├── Overloaded         the server's queue is full; `retry_after` says when to come back
├── Unavailable        no server was reached, or it is starting, draining or gone
├── DeadlineExceeded   no answer came within the timeout
└── ServerError        the server failed; `request_id` is the one to look for in its log
```

Each keeps the gRPC `code` and the server's `details`. Calls are retried before
`Unavailable` and `Overloaded` reach the caller.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

_Detail = TypeVar("_Detail", bound=Message)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing that is wrong with a request: google.rpc.BadRequest.FieldViolation.

    Attributes:
        field: The field of the request, such as "pixels" or "model_version".
        description: What is wrong with it and what to do.
    """

    field: str
    description: str


class ClientError(Exception):
    """Any failure of a call.

    Attributes:
        details: The sentence that the server, gRPC or this library gave.
        code: The gRPC status.
        request_id: What the server calls this request in its log; empty where it did not say.
    """

    def __init__(
        self,
        details: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        request_id: str = "",
    ) -> None:
        super().__init__(details)
        self.details = details
        self.code = code
        self.request_id = request_id


class InvalidInput(ClientError):
    """What was sent is wrong, found here or by the server; sending it again cannot help.

    Attributes:
        violations: Which fields are wrong and what to do about each.
    """

    def __init__(
        self,
        details: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT,
        request_id: str = "",
        violations: tuple[FieldViolation, ...] = (),
    ) -> None:
        super().__init__(details, code=code, request_id=request_id)
        self.violations = violations


class NotFound(ClientError):
    """The server has no such model, version or service."""


class AccessDenied(ClientError):
    """The server knows no such caller, or does not allow it this call."""


class Overloaded(ClientError):
    """The server has as much to do as it accepts, and still had after the retries.

    Attributes:
        retry_after: Seconds to wait before another try; None where the server did not say.
    """

    def __init__(
        self,
        details: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED,
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(details, code=code, request_id=request_id)
        self.retry_after = retry_after


class Unavailable(ClientError):
    """No server was reached, or it is starting, draining or gone."""


class DeadlineExceeded(ClientError):
    """No answer came within the timeout."""


class ServerError(ClientError):
    """The server failed in a way that this request is not to blame for."""


_ERRORS: dict[grpc.StatusCode, type[ClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: InvalidInput,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}

# gRPC uses one status for a full queue and for a message above the receiver's
# limit, and only its text tells them apart.
_TOO_LARGE = "larger than max"


def from_status(status: status_pb2.Status) -> ClientError:
    """Turns a google.rpc.Status, such as a stream carries for a bad item, into an error."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    kind = _ERRORS.get(code, ServerError)
    details = status.message or f"The server answered {code.name} and gave no reason."
    request = _detail(status, error_details_pb2.RequestInfo)
    common: dict[str, Any] = {"code": code, "request_id": request.request_id}
    if kind is Overloaded and _TOO_LARGE in details:
        return InvalidInput(
            f"The message is too large ({details}): send fewer images in one call.", **common
        )
    if kind is InvalidInput:
        found = _detail(status, error_details_pb2.BadRequest).field_violations
        violations = tuple(FieldViolation(one.field, one.description) for one in found)
        return InvalidInput(details, violations=violations, **common)
    if kind is Overloaded:
        retry = _detail(status, error_details_pb2.RetryInfo)
        wait = retry.retry_delay.ToTimedelta() if retry.HasField("retry_delay") else None
        return Overloaded(details, retry_after=wait and wait.total_seconds(), **common)
    return kind(details, **common)


def from_call(call: Any) -> ClientError:
    """Turns the error of a blocking or awaited call, which is its `grpc.Call` too, into ours."""
    try:
        status = rpc_status.from_call(call)
    except (ValueError, DecodeError):  # a proxy changed the status and left the details
        status = None
    if status is None:
        status = status_pb2.Status(code=call.code().value[0], message=call.details() or "")
    return from_status(status)


@contextmanager
def translated() -> Iterator[None]:
    """Raises gRPC's errors as this library's own."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_call(error) from error


def _detail(status: status_pb2.Status, kind: type[_Detail]) -> _Detail:
    """Returns the status's first detail of a kind, or an empty one."""
    detail = kind()
    for packed in status.details:
        if packed.Unpack(detail):
            break
    return detail
