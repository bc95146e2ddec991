"""The endpoints that load and unload experts, as vLLM has them."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from lorary.errors import LibraryError
from lorary.serving.answering import error_body
from lorary.serving.schema import Load, Unload


def add_edit_endpoints(app: FastAPI, guards: Sequence[Any]) -> None:
    """Let experts be loaded and unloaded over HTTP, by the editor in the application's state."""
    for path, endpoint in (("/v1/load_lora_adapter", _load), ("/v1/unload_lora_adapter", _unload)):
        app.add_api_route(path, endpoint, methods=["POST"], dependencies=guards, response_model=None)


async def _load(asked: Load, request: Request) -> Response:
    try:
        await request.app.state.editor.load(asked.lora_name, asked.lora_path, in_place=asked.load_inplace)
    except LibraryError as error:
        return JSONResponse(error_body(error), 400)  # the adapter's fault, its name's too: 404 would be of a model
    return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")


async def _unload(asked: Unload, request: Request) -> Response:
    await request.app.state.editor.unload(asked.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")
