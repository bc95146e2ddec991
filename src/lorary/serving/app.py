"""The HTTP interface: OpenAI's endpoints over a shelf of routed models."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from lorary import __version__
from lorary.disk.processes import scratch
from lorary.errors import LoraryError, OptionError
from lorary.progress import Tell, unheard
from lorary.serving.answering import Answer, Piece, answers_to, error_body
from lorary.serving.bodies import BodyLimit, Head, piece_choice, refuse, refuse_fields, usage, whole_choice
from lorary.serving.edit_endpoints import EDITS_OF_REPLICAS, add_edit_endpoints, refuse_edits
from lorary.serving.edits import Editor
from lorary.serving.inspector_endpoints import add_inspector
from lorary.serving.scheduler import Limits, Scheduler
from lorary.serving.schema import Chat, Completion
from lorary.serving.shelf import Found, Shelf
from lorary.serving.watch import watch_all

TRACE_HEADER = "X-Lorary-Trace"


@dataclass(frozen=True)
class Options:
    """How it serves. api_key: what clients must send, if anything; max_new_tokens: of one answer, at most.

    max_body: bytes of one request; patience_s: for answers under way when it is asked to end.
    allow_edits: whether clients may load and unload experts, which takes a key. watch_s: how often the libraries on
    disk are looked at for changes; None: never. tell: hears of changes, and of those that failed. is_replica: whether
    there are others behind the same address, so that nothing may be asked that is of all. origins: whose pages may ask
    from a browser; by default none but the server's own.
    Raises E-OPTION for edits without a key or of a replica, and for an empty key.
    """

    limits: Limits = field(default_factory=Limits)
    api_key: str | None = None
    max_new_tokens: int = 1024
    max_body: int = 4 << 20
    patience_s: float = 8.0
    allow_edits: bool = False
    watch_s: float | None = None
    tell: Tell = unheard
    is_replica: bool = False
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.api_key == "":
            raise OptionError("E-OPTION", "the API key is empty.", "Give one that can't be guessed, or none.")
        if self.allow_edits and self.is_replica:
            raise OptionError("E-OPTION", *EDITS_OF_REPLICAS)
        if self.allow_edits and self.api_key is None:
            hint = "Give one: --api-key, or LORARY_API_KEY."
            raise OptionError("E-OPTION", "experts may be loaded and unloaded only by who has a key.", hint)


def make_app(shelf: Shelf, options: Options = Options()) -> FastAPI:
    """Make the application; it starts a thread that answers, and ends it with itself."""
    limits = options.limits if shelf.base.calls.hides_padding else replace(options.limits, rows=1)
    scheduler = Scheduler(shelf.callers, shelf.base.device, limits)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        with scratch() as store:
            app.state.editor = editor = Editor(shelf, scheduler, options.tell, store)
            scheduler.start()
            watching = asyncio.create_task(watch_all(shelf, editor, options.tell, options.watch_s))
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.to_thread(scheduler.stop)

    app = FastAPI(title="lorary", version=__version__, lifespan=running, docs_url=None, redoc_url=None)
    if options.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=options.origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )  # fmt: skip
    endpoints = _Endpoints(shelf, scheduler, options)
    guarded = [Depends(endpoints.require_key)]
    app.add_api_route("/v1/models", endpoints.models, methods=["GET"], dependencies=guarded)
    app.add_api_route("/v1/models/{name:path}", endpoints.model, methods=["GET"], dependencies=guarded)
    app.add_api_route(
        "/v1/completions", endpoints.completions, methods=["POST"], dependencies=guarded, response_model=None
    )
    app.add_api_route(
        "/v1/chat/completions", endpoints.chat, methods=["POST"], dependencies=guarded, response_model=None
    )
    if options.is_replica:
        refuse_edits(app, guarded)
    elif options.allow_edits:
        add_edit_endpoints(app, guarded)
    add_inspector(app, shelf, guarded)
    app.add_api_route("/health", endpoints.health, methods=["GET"])
    app.add_api_route("/metrics", endpoints.metrics, methods=["GET"], response_model=None)
    app.add_middleware(BodyLimit, most=options.max_body)
    app.add_exception_handler(RequestValidationError, refuse_fields)
    app.add_exception_handler(LoraryError, refuse)
    return app


class _KeyRefusedError(LoraryError):
    """A request without the key."""


class _Endpoints:
    """Takes requests in and gives answers out."""

    def __init__(self, shelf: Shelf, scheduler: Scheduler, options: Options) -> None:
        self.shelf, self.scheduler, self.options = shelf, scheduler, options
        self._registry = CollectorRegistry()
        self._requests = Counter("lorary_requests", "Requests by model.", ["model"], registry=self._registry)
        self._tokens = Counter("lorary_tokens", "Tokens, read or made.", ["what"], registry=self._registry)
        for name, help_, value in (
            ("lorary_waiting", "Requests that wait.", lambda: scheduler.n_waiting),
            ("lorary_answering", "Answers under way.", lambda: scheduler.n_answering),
        ):
            Gauge(name, help_, registry=self._registry).set_function(value)

    # ---- what stands before every request -------------------------------------------------------

    def require_key(self, request: Request) -> None:
        key = self.options.api_key
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key is not None and not secrets.compare_digest(sent.encode(), key.encode()):
            raise _KeyRefusedError("invalid_api_key", "the key is missing or wrong.", "Send it as a bearer token.")

    # ---- endpoints ------------------------------------------------------------------------------

    async def models(self) -> dict[str, object]:
        return {"object": "list", "data": [_card(name) for name in self.shelf.names]}

    async def model(self, name: str) -> dict[str, object]:
        self.shelf.find(name)
        return _card(name)

    async def health(self) -> dict[str, object]:
        return {"status": "ok", "waiting": self.scheduler.n_waiting, "answering": self.scheduler.n_answering}

    async def metrics(self) -> Response:
        if self.options.is_replica:
            what = "each replica counts for itself, so that the one that answers knows a part of the whole."
            raise OptionError("E-OPTION", what, "Ask Ray for its metrics, which are of all.")
        return PlainTextResponse(generate_latest(self._registry), media_type="text/plain; version=0.0.4")

    async def completions(self, asked: Completion, request: Request) -> Response:
        return await self._answer(asked, request)

    async def chat(self, asked: Chat, request: Request) -> Response:
        return await self._answer(asked, request)

    async def _answer(self, asked: Chat | Completion, request: Request) -> Response:
        found = self.shelf.find(asked.model)
        self._requests.labels(asked.model).inc()
        in_full = _wants_trace(request)
        answers = answers_to(asked, found, self.shelf.base, self.options.max_new_tokens, in_full=in_full)
        self.scheduler.submit(found.desk, [answer.ask for answer in answers])
        head = Head(asked.model, isinstance(asked, Chat), _routing(found))
        if asked.stream:
            pieces = self._streamed(asked, head, answers)
            return StreamingResponse(pieces, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return await self._whole(asked, head, answers, request)

    async def _whole(
        self, asked: Chat | Completion, head: Head, answers: Sequence[Answer], request: Request
    ) -> Response:
        collecting, leaving = asyncio.gather(*map(_collect, answers)), asyncio.ensure_future(_leave(request))
        both: list[asyncio.Future[Any]] = [collecting, leaving]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not collecting.done():
                return Response(status_code=499)
            found = await collecting
        finally:
            leaving.cancel()
            collecting.cancel()
            _cancel(answers)
        self._count(answers)
        choices = [
            whole_choice(head, i, _echoed(asked, a, pieces, self.shelf.base.tokenizer), self.shelf.base.tokenizer,
                         logprobs=_wants_logprobs(asked)) | _heard(a, self.shelf.base.tokenizer)
            for i, (a, pieces) in enumerate(zip(answers, found, strict=True))
        ]  # fmt: skip
        return JSONResponse(head.body("", choices=choices, usage=usage(answers, asked.n or 1)))

    async def _streamed(self, asked: Chat | Completion, head: Head, answers: Sequence[Answer]) -> AsyncIterator[str]:
        merged: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue()

        async def follow(i: int, answer: Answer) -> None:
            try:
                async for piece in answer:
                    merged.put_nowait((i, piece))
            except Exception as error:
                merged.put_nowait((i, error))
            merged.put_nowait((i, None))

        following = [asyncio.ensure_future(follow(i, answer)) for i, answer in enumerate(answers)]
        logprobs, tokenizer, left = _wants_logprobs(asked), self.shelf.base.tokenizer, len(answers)
        try:
            for i in range(len(answers) if head.is_chat else 0):
                first = {"index": i, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                yield _event(head.body(".chunk", choices=[first]))
            while left:
                i, piece = await merged.get()
                if isinstance(piece, Exception):
                    yield _event(error_body(piece))
                elif piece is not None:
                    choice = piece_choice(head, i, piece, tokenizer, logprobs=logprobs)
                    choice |= _heard(answers[i], tokenizer) if piece.ending else {}
                    yield _event(head.body(".chunk", choices=[choice]))
                else:
                    left -= 1
            if asked.with_usage:
                yield _event(head.body(".chunk", choices=[], usage=usage(answers, asked.n or 1)))
            yield "data: [DONE]\n\n"
        finally:
            for task in following:
                task.cancel()
            _cancel(answers)
            self._count(answers)

    def _count(self, answers: Sequence[Answer]) -> None:
        self._tokens.labels("read").inc(sum(answer.n_prompt for answer in answers))
        self._tokens.labels("made").inc(sum(answer.n_made for answer in answers))


async def _collect(answer: Answer) -> list[Piece]:
    return [piece async for piece in answer]


async def _leave(request: Request) -> None:
    """Wait until a client goes away whose request was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _cancel(answers: Sequence[Answer]) -> None:
    for answer in answers:
        answer.cancel()


def _echoed(asked: Chat | Completion, answer: Answer, pieces: list[Piece], tokenizer: Any) -> list[Piece]:
    """Put the prompt before an answer, if it is asked for."""
    if not (isinstance(asked, Completion) and asked.echo):
        return pieces
    request = answer.ask.request
    return [Piece(tokenizer.decode(list(request.prompt)), tuple(request.read)), *pieces]


def _wants_logprobs(asked: Chat | Completion) -> bool:
    return asked.logprobs is not None and asked.logprobs is not False


def _wants_trace(request: Request) -> bool:
    wanted = request.headers.get(TRACE_HEADER)
    if wanted not in (None, "full"):
        raise OptionError("E-OPTION", f"{TRACE_HEADER} is {wanted!r}.", "Send full, or leave the header out.")
    return wanted is not None


def _heard(answer: Answer, tokenizer: Any) -> dict[str, Any]:
    return answer.heard.body(tokenizer) if answer.heard is not None else {}


def _routing(found: Found) -> dict[str, str]:
    facts = {"router": found.router, "expert": found.task}
    return {name: value for name, value in facts.items() if value}


def _card(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "lorary"}


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
