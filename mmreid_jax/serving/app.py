"""The page as an ASGI application: a few routes, nothing from elsewhere, nothing stored."""

from __future__ import annotations

import dataclasses
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from mmreid_jax.errors import UserError, printable
from mmreid_jax.serving.searching import Searcher

if TYPE_CHECKING:
    from starlette.applications import Starlette

MEGABYTE = 1 << 20
LONGEST_TEXT = 1000
"""Letters of a query in words that are read."""
_KINDS = {"index.html": "text/html", "page.js": "text/javascript", "page.css": "text/css"}
# Scripts, pictures and requests of this page alone; nobody may frame it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def application(searcher: Searcher, facts: dict[str, Any], hosts: list[str], largest: int = 20 * MEGABYTE) -> Starlette:
    """The application.

    Args:
      searcher: the model and its gallery.
      facts: shown by the page: ``model``, ``gallery``, and ``threshold`` or None.
      hosts: names that a browser may call this machine by; a page of another name is somebody else's that was made to
        point here.
      largest: bytes of an image that is taken.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    about = {
        **facts,
        "samples": len(searcher),
        "cameras": searcher.cameras,
        "modalities": list(searcher.modalities),
        "reads_text": searcher.reads_text,
        "largest": largest,
    }

    def refused(message: str, status: int) -> Response:
        return JSONResponse({"error": printable(message, LONGEST_TEXT)}, status, _HEADERS)

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in _KINDS:
            return refused("there is no such page", 404)
        content = resources.files("mmreid_jax.serving").joinpath(f"page/{name}").read_bytes()
        return Response(content, media_type=_KINDS[name], headers=_HEADERS)

    async def told(request: Request) -> Response:
        return JSONResponse(about, headers=_HEADERS)

    async def search(request: Request) -> Response:
        content = bytearray()
        try:
            async for piece in request.stream():
                content += piece
                if len(content) > largest:
                    return refused(f"the image has more than the {largest / MEGABYTE:.0f} MB that are read", 413)
        except ClientDisconnect:
            # Nobody waits for an answer any more.
            return refused("the image did not arrive", 400)
        asked = request.query_params
        cameras = asked.getlist("camera")
        text = asked.get("text", "")
        if len(text) > LONGEST_TEXT:
            return refused(f"the text has more than {LONGEST_TEXT} letters", 400)
        try:
            found = await run_in_threadpool(searcher.search, bytes(content), asked.get("modality", ""), text, cameras)
        except UserError as error:
            return refused(str(error), 400)
        return JSONResponse({"matches": [dataclasses.asdict(each) for each in found]}, headers=_HEADERS)

    async def picture(request: Request) -> Response:
        row = request.path_params["row"]
        if not re.fullmatch("[0-9]{1,18}", row):
            return refused("there is no such picture", 404)
        try:
            content = await run_in_threadpool(searcher.picture, int(row))
        except UserError as error:
            return refused(str(error), 404)
        return Response(content, media_type="image/jpeg", headers=_HEADERS)

    routes = [
        Route("/", page),
        Route("/facts", told),
        Route("/search", search, methods=["POST"]),
        Route("/picture/{row}", picture),
        Route("/{name}", page),
    ]
    # Some versions of the middleware cut a host at its first colon. Only an address of numbers begins with a bracket,
    # and nobody can make one of those point elsewhere.
    numbers = [each for host in hosts if ":" in host for each in (f"[{host}]", "[")]
    allowed = [*hosts, *numbers]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=allowed)])
