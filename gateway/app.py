"""Puts the gateway together."""

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp

from client import AsyncDigitClient
from gateway import pages, problems, samples, schemas, status
from gateway.bodies import Slots
from gateway.edge import Edge
from gateway.predictions import Predictions

# Under way at once; each may hold predictions.IMAGE_BYTES.
MAX_REQUESTS = 256

DESCRIPTION = """What a model sees in handwritten digits: REST for the gRPC service behind it.

What goes wrong is a problem document (RFC 9457) with one sentence for people, the
request's id, and the fields that are wrong. X-Request-Id and traceparent are passed on to
the server."""


def build(client: AsyncDigitClient, timeout: float) -> ASGIApp:
    """Returns the gateway as an ASGI application; to be called in the loop that runs it.

    Args:
        client: the server behind.
        timeout: seconds that a request may take.
    """
    app = FastAPI(
        title="MNIST inference",
        version="1",
        description=DESCRIPTION,
        docs_url=None,  # a page of our own, as FastAPI's loads scripts from elsewhere
        redoc_url=None,
    )
    problems.install(app)
    slots = Slots(MAX_REQUESTS)
    for router in (
        Predictions(client, timeout, slots).router(),
        samples.router(client, timeout, slots),
        status.router(client, timeout, slots),
        pages.router(),
    ):
        app.include_router(router)
    app.mount("/static", pages.files)
    _describe(app)
    return Edge(app)


def _describe(app: FastAPI) -> None:
    """Adds to OpenAPI's document what FastAPI cannot know: what is not pydantic's."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    template = "#/components/schemas/{name}"
    _, requests = msgspec.json.schema_components(schemas.REQUESTS, ref_template=template)
    problem = schemas.Problem.model_json_schema(ref_template=template.replace("name", "model"))
    known = document["components"]["schemas"]
    known |= requests | problem.pop("$defs") | {"Problem": problem}
    app.openapi = lambda: document  # type: ignore[method-assign] # as FastAPI documents it
