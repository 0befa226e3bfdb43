"""Around every call: the one table that maps domain errors to status codes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from server import errors

log = structlog.get_logger()

if TYPE_CHECKING:  # generic in its stubs only
    Handler = grpc.RpcMethodHandler[Any, Any]

_CODES: dict[type[Exception], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.NotReady: grpc.StatusCode.UNAVAILABLE,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
}


def to_status(error: Exception, context: grpc.ServicerContext) -> Status:
    """Returns what the wire says of an error; one that is not in the table is logged too."""
    code = _CODES.get(type(error))
    if code is not None:
        status = Status(code=code.value[0], message=str(error))
        for detail in _details(error):
            status.details.add().Pack(detail)
        return status
    request_id = _request_id(context)
    log.error("call failed", request_id=request_id, exc_info=error)
    status = Status(
        code=grpc.StatusCode.INTERNAL.value[0],
        message=f"The server failed on this request: its log says why, under {request_id}.",
    )
    status.details.add().Pack(RequestInfo(request_id=request_id))
    return status


def _details(error: Exception) -> list[Message]:
    match error:
        case errors.InvalidInput():
            violation = BadRequest.FieldViolation(field=error.field, description=error.description)
            return [BadRequest(field_violations=[violation])]
        case errors.QueueFull():
            delay = Duration()
            delay.FromNanoseconds(round(error.retry_after * 1e9))
            return [RetryInfo(retry_delay=delay)]
        case _:
            return []


def _request_id(context: grpc.ServicerContext) -> str:
    """The caller's own `x-request-id`, or a new one."""
    given = (value for key, value in context.invocation_metadata() if key == "x-request-id")
    return str(next(given, None) or secrets.token_hex(8))


class ErrorInterceptor(grpc.ServerInterceptor):
    """Ends a call that raised with the status that `to_status` gives its error."""

    def __init__(self) -> None:
        self._wrapped: dict[str, Handler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps each method once; gRPC's own health and reflection stay as they are."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = continuation(handler_call_details)
            if handler is None or method.startswith("/grpc."):
                return handler
            self._wrapped[method] = _wrap(handler)
        return self._wrapped[method]


def _wrap(handler: Handler) -> Handler:
    """Parses requests here too, so that bytes that are no message are the caller's error."""
    deserialize = handler.request_deserializer

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data) if deserialize else data
        except DecodeError:
            raise errors.InvalidInput(
                "", "These bytes are not the message this method takes: check the .proto."
            ) from None

    if (unary := handler.unary_unary) is not None:

        def respond(data: bytes, context: grpc.ServicerContext) -> Any:
            try:
                return unary(parse(data), context)
            except Exception as error:  # noqa: BLE001 - the last stop before the wire
                context.abort_with_status(rpc_status.to_status(to_status(error, context)))

        return grpc.unary_unary_rpc_method_handler(
            respond, response_serializer=handler.response_serializer
        )

    stream = handler.stream_stream
    assert stream is not None  # noqa: S101 - our services have these two kinds of methods

    def respond_to_stream(data: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from stream(map(parse, data), context)
        except Exception as error:  # noqa: BLE001 - the last stop before the wire
            context.abort_with_status(rpc_status.to_status(to_status(error, context)))

    return grpc.stream_stream_rpc_method_handler(
        respond_to_stream, response_serializer=handler.response_serializer
    )
