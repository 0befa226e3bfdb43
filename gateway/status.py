"""The paths that say how things are."""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from client import AsyncDigitClient, ClientError, Health, Unavailable
from gateway import schemas
from gateway.bodies import Slots
from gateway.edge import metadata
from gateway.problems import responses

# Who asks whether a server is ready does not want to wait for it.
READY_SECONDS = 1.0


def router(client: AsyncDigitClient, timeout: float, slots: Slots) -> APIRouter:
    """Returns their routes.

    Args:
        client: the server behind.
        timeout: seconds that a request may take.
        slots: how many requests may be under way.
    """
    router = APIRouter(tags=["status"])

    @router.get("/healthz")
    async def alive() -> schemas.State:
        """Say that the gateway is alive, whatever the server behind it is."""
        return schemas.State(status="alive")

    @router.get(
        "/readyz",
        responses=responses(HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE),
    )
    async def ready() -> schemas.State:
        """Say that the server behind the gateway is serving."""
        try:
            with slots.taken():
                health = await client.health(timeout=READY_SECONDS)
        except ClientError as error:
            raise Unavailable(error.details) from error
        if health is not Health.SERVING:
            raise Unavailable(f"The server is {health}.")
        return schemas.State(status="ready")

    @router.get(
        "/models",
        responses=responses(
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.BAD_GATEWAY,
            HTTPStatus.SERVICE_UNAVAILABLE,
            HTTPStatus.GATEWAY_TIMEOUT,
        ),
    )
    async def models(request: Request) -> schemas.Models:
        """List every model and version that the server knows, and where each comes from."""
        beside = metadata(request.state.request_id, request.state.traceparent)
        with slots.taken():
            return schemas.Models(models=await client.models(timeout=timeout, metadata=beside))

    @router.get("/metrics", response_class=Response, include_in_schema=False)
    async def metrics() -> Response:
        """Say what Prometheus asks."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router
