"""Around every call: its errors' status codes, its log line, its metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, RequestInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from server import errors, metrics
from server.arrivals import Arrivals
from server.calls import Call, current

log = structlog.get_logger()

if TYPE_CHECKING:  # generic in its stubs only
    Handler = grpc.RpcMethodHandler[Any, Any]
    from server.tracing import Tracing  # imported where traces are wanted only

_CODES: dict[type[Exception], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.ModelRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotReady: grpc.StatusCode.UNAVAILABLE,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
}


def code_of(error: Exception) -> grpc.StatusCode:
    """Returns the status code that an error has on the wire."""
    return _CODES.get(type(error), grpc.StatusCode.INTERNAL)


def to_status(error: Exception) -> Status:
    """Returns what the wire says of an error; one that nobody foresaw is logged with its trace."""
    code = code_of(error)
    message, details = str(error), _details(error)
    if code is grpc.StatusCode.INTERNAL:
        request_id = current.get().request_id
        log.error("call failed", request_id=request_id, exc_info=error)
        message = f"The server failed on this request: its log says why, under {request_id}."
        details = [RequestInfo(request_id=request_id)]
    status = Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _details(error: Exception) -> list[Message]:
    match error:
        case errors.InvalidInput():
            violation = BadRequest.FieldViolation(field=error.field, description=error.description)
            return [BadRequest(field_violations=[violation])]
        case errors.ModelNotFound():
            # Cut, since a client takes no more than some 8 KiB of all this.
            name = error.model[:256]
            return [ResourceInfo(resource_type="model", resource_name=name)]
        case errors.QueueFull():
            delay = Duration()
            delay.FromNanoseconds(round(error.retry_after * 1e9))
            return [RetryInfo(retry_delay=delay)]
        case _:
            return []


class CallInterceptor(grpc.ServerInterceptor):
    """Follows each call to our services from its first byte to its last.

    Args:
        arrivals: told of unary calls as they come.
        access_log: gets each call when it has ended.
        tracing: gets the calls' spans; None for no traces.
    """

    def __init__(
        self, arrivals: Arrivals, access_log: Callable[[Call], None], tracing: Tracing | None = None
    ) -> None:
        self._arrivals = arrivals
        self._access_log = access_log
        self._tracing = tracing
        self._wrapped: dict[str, Handler] = {}
        self._leaving = False

    def refuse(self) -> None:
        """Answers new calls with UNAVAILABLE from now on; those under way are finished."""
        self._leaving = True

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps each method once; gRPC's own health and reflection stay as they are."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = continuation(handler_call_details)
            if handler is None:
                metrics.requests.labels("other", "", grpc.StatusCode.UNIMPLEMENTED.name).inc()
                return None
            if method.startswith("/grpc."):
                return handler
            wrap = self._wrap_stream if handler.unary_unary is None else self._wrap_unary
            self._wrapped[method] = wrap(method, handler)
        return self._wrapped[method]

    def _wrap_unary(self, method: str, handler: Handler) -> Handler:
        parse, to_bytes = _parser(handler), _serializer(handler)

        def arrive(data: bytes) -> bytes:  # in gRPC's own thread
            self._arrivals.come()
            return data

        def respond(data: bytes, context: grpc.ServicerContext) -> Any:
            self._arrivals.go()
            call = self._begin(method, context)
            try:
                self._admit()
                return to_bytes(handler.unary_unary(parse(data), context), call)  # type: ignore[misc] # it is there
            except Exception as error:  # noqa: BLE001 - the last stop before the wire
                self._abort(call, error, context)
            finally:
                self._end(call)

        return grpc.unary_unary_rpc_method_handler(respond, arrive)

    def _wrap_stream(self, method: str, handler: Handler) -> Handler:
        parse, to_bytes = _parser(handler), _serializer(handler)

        def respond(data: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            call = self._begin(method, context)
            try:
                self._admit()
                for response in handler.stream_stream(map(parse, data), context):  # type: ignore[misc] # as above
                    yield to_bytes(response, call)
            except GeneratorExit:  # the caller takes no more answers
                call.code = grpc.StatusCode.CANCELLED.name
                raise
            except grpc.RpcError:  # the caller sends no more
                self._abort(call, errors.Cancelled("The caller went away."), context)
            except Exception as error:  # noqa: BLE001 - as above
                self._abort(call, error, context)
            finally:
                self._end(call)

        return grpc.stream_stream_rpc_method_handler(respond)

    def _begin(self, method: str, context: grpc.ServicerContext) -> Call:
        call = Call(method, context.invocation_metadata())
        if self._tracing:
            call.trace = self._tracing.follow(call)
        current.set(call)
        metrics.under_way.add(call)
        return call

    def _abort(self, call: Call, error: Exception, context: grpc.ServicerContext) -> NoReturn:
        call.code = code_of(error).name
        status = rpc_status.to_status(to_status(error))
        if isinstance(error, errors.QueueFull):
            status = status._replace(  # type: ignore[attr-defined] # a named tuple
                trailing_metadata=(*status.trailing_metadata, _pushback(error.retry_after))
            )
        context.abort_with_status(status)

    def _end(self, call: Call) -> None:
        call.seconds = time.perf_counter() - call.started
        metrics.under_way.discard(call)
        metrics.later(metrics.ended, call)
        self._access_log(call)
        if call.trace:
            call.trace.end(call)

    def _admit(self) -> None:
        if self._leaving:
            raise errors.NotReady("The server is leaving: try again, and another will answer.")


def _pushback(seconds: float) -> tuple[str, str]:
    """What gRPC's own retries wait for, as RetryInfo is for people's: gRFC A6."""
    return "grpc-retry-pushback-ms", str(round(seconds * 1000))


# Parsing and serialising are done where the call is followed: so bytes that are no
# message are the caller's error, and both count as the call's time.


def _parser(handler: Handler) -> Callable[[bytes], Any]:
    deserialize = handler.request_deserializer

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data) if deserialize else data
        except DecodeError:
            raise errors.InvalidInput(
                "", "These bytes are not the message this method takes: check the .proto."
            ) from None

    return parse


def _serializer(handler: Handler) -> Callable[[Any, Call], Any]:
    serialize = handler.response_serializer

    def to_bytes(response: Any, call: Call) -> Any:
        data = serialize(response) if serialize else response
        if call.trace:
            call.trace.serialised()
        return data

    return to_bytes
