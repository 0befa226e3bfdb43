"""The pages, and what they are made of: plain files, all our own."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

_STATIC = Path(__file__).parent / "static"

files = StaticFiles(directory=_STATIC)


def page(name: str) -> FileResponse:
    """Returns one of the pages."""
    return FileResponse(_STATIC / f"{name}.html")


def router() -> APIRouter:
    """Returns the routes of those pages that are nothing else besides."""
    router = APIRouter(include_in_schema=False, default_response_class=FileResponse)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index() -> FileResponse:
        """Draw a digit."""
        return page("index")

    @router.api_route("/docs", methods=["GET", "HEAD"])
    async def docs() -> FileResponse:
        """Read about the paths, and try them."""
        return page("docs")

    return router
