"""What stands before every request: none may be larger than was agreed, and each must say how large it is."""

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lorary.errors import ModelError
from lorary.serving.answering import error_body


class BodyLimit:
    """Refuses a request by its head, before its body is read. Answers pass by untouched, so that a piece costs nothing.

    most: bytes of a request's body.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, or refuse it."""
        if scope["type"] == "http" and scope["method"] == "POST" and not self._fits(Headers(scope=scope)):
            what = f"a request may have {self._most:,} bytes, and must say how many it has."
            await JSONResponse(error_body(ModelError("too_large", what)), 413)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _fits(self, headers: Headers) -> bool:
        sent = headers.get("content-length")
        return sent is not None and sent.isdigit() and int(sent) <= self._most
