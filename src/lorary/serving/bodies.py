"""Answers as OpenAI writes them, whole or in pieces, and refusals."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from lorary.errors import ModelError
from lorary.model.decoding.decoder import Token
from lorary.serving.answering import Answer, Piece, error_body
from lorary.serving.scheduler import FullError

_RETRY_S = 1


@dataclass(frozen=True)
class Head:
    """What every piece of an answer says: to which question, when, of which model. routing: its library and router."""

    model: str
    is_chat: bool
    routing: Mapping[str, str]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, kind: str, **parts: object) -> dict[str, Any]:
        """Make a body of some kind."""
        prefix = "chatcmpl" if self.is_chat else "cmpl"
        object_ = {True: f"chat.completion{kind}", False: "text_completion"}[self.is_chat]
        head = {"id": f"{prefix}-{self.id}", "object": object_, "created": self.created, "model": self.model}
        return {**head, **parts, "lorary": dict(self.routing)}


def usage(answers: Sequence[Answer], n_each: int) -> dict[str, int]:
    """Count tokens; n answers of one prompt read it once."""
    read, made = sum(a.n_prompt for a in answers[::n_each]), sum(a.n_made for a in answers)
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def whole_choice(head: Head, index: int, pieces: Sequence[Piece], tokenizer: Any, *, logprobs: bool) -> dict[str, Any]:
    """Make one choice of an answer that isn't streamed."""
    text = "".join(piece.text for piece in pieces)
    tokens = [token for piece in pieces for token in piece.tokens]
    told = {"index": index, "logprobs": _logprobs(head, tokens, tokenizer) if logprobs else None,
            "finish_reason": pieces[-1].ending}  # fmt: skip
    return told | ({"message": {"role": "assistant", "content": text}} if head.is_chat else {"text": text})


def piece_choice(head: Head, index: int, piece: Piece, tokenizer: Any, *, logprobs: bool) -> dict[str, Any]:
    """Make one choice of a piece of a stream."""
    told = {"index": index, "logprobs": _logprobs(head, piece.tokens, tokenizer) if logprobs else None,
            "finish_reason": piece.ending}  # fmt: skip
    return told | ({"delta": {"content": piece.text} if piece.text else {}} if head.is_chat else {"text": piece.text})


def _logprobs(head: Head, tokens: Sequence[Token], tokenizer: Any) -> dict[str, Any]:
    if head.is_chat:
        return {"content": [_told(token.number, token.logprob, tokenizer) | {
            "top_logprobs": [_told(number, nats, tokenizer) for number, nats in token.likeliest]
        } for token in tokens], "refusal": None}  # fmt: skip
    texts = [_text(token.number, tokenizer) for token in tokens]
    places = [sum(map(len, texts[:i])) for i in range(len(texts))]
    top = [
        None if token.logprob is None else {_text(n, tokenizer): nats for n, nats in token.likeliest}
        for token in tokens
    ]
    return {"tokens": texts, "token_logprobs": [t.logprob for t in tokens], "top_logprobs": top, "text_offset": places}


def _told(number: int, nats: float | None, tokenizer: Any) -> dict[str, Any]:
    text = _text(number, tokenizer)
    return {"token": text, "logprob": nats, "bytes": list(text.encode())}


def _text(number: int, tokenizer: Any) -> str:
    text: str = tokenizer.decode([number])
    return text


# ---- refusals -----------------------------------------------------------------------------------


async def refuse_fields(_: Request, error: Exception) -> Response:
    """Say what is wrong with a request's fields."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or None
    message = first["msg"].removeprefix("Value error, ")
    body = {"message": f"{place}: {message}" if place else message, "type": "invalid_request_error", "param": place}
    return JSONResponse({"error": {**body, "code": None}}, 400)


async def refuse(_: Request, error: Exception) -> Response:
    """Say what was raised, with the status that fits it."""
    if isinstance(error, FullError):
        body = error_body(error)
        body["error"]["type"] = "rate_limit_error"
        return JSONResponse(body, 429, {"Retry-After": str(_RETRY_S)})
    status = {"invalid_api_key": 401, "E-NAME": 404, "E-MEMORY": 500}.get(getattr(error, "code", ""), 400)
    body = error_body(error)
    if status == 404:
        body["error"]["code"] = "model_not_found"
    return JSONResponse(body, status)


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
