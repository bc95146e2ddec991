"""The endpoints that load and unload experts, as vLLM has them."""

from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.params import Depends
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from lorary.errors import OptionError
from lorary.serving.answering import error_body
from lorary.serving.schema import Load, Unload

_LOADS, _UNLOADS = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
EDITS_OF_REPLICAS = (
    "a request reaches one of several replicas, so that experts can't be loaded or unloaded in all by it.",
    "Change the library on disk, and serve it with --watch: every replica follows.",
)
"""Why replicas take no edits, and what to do."""


def add_edit_endpoints(app: FastAPI, guards: Sequence[Depends]) -> None:
    """Let experts be loaded and unloaded over HTTP, by the editor in the application's state."""
    for path, endpoint in ((_LOADS, _load), (_UNLOADS, _unload)):
        app.add_api_route(path, endpoint, methods=["POST"], dependencies=guards, response_model=None)


def refuse_edits(app: FastAPI, guards: Sequence[Depends]) -> None:
    """Say why experts can't be loaded and unloaded here."""
    for path in (_LOADS, _UNLOADS):
        app.add_api_route(path, _refused, methods=["POST"], dependencies=guards, response_model=None)


async def _refused() -> Response:
    raise OptionError("E-OPTION", *EDITS_OF_REPLICAS)


async def _load(asked: Load, request: Request) -> Response:
    editor = request.app.state.editor
    library, name = editor.place(asked.lora_name)
    try:
        await editor.load(library, name, asked.lora_path, in_place=asked.load_inplace)
    except OptionError as error:
        return JSONResponse(error_body(error), 400)  # the adapter's name is at fault: 404 would be of a model
    return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")


async def _unload(asked: Unload, request: Request) -> Response:
    editor = request.app.state.editor
    await editor.unload(*editor.place(asked.lora_name))
    return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")
