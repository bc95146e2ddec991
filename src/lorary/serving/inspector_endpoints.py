"""The inspector's page and what it asks beside OpenAI's interface: what there is, and how alike its experts are."""

import asyncio
from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.params import Depends
from fastapi.responses import HTMLResponse, Response

from lorary.errors import OptionError, known_names
from lorary.pages.inspector import POLICY, MapOfExperts, chat_asset, chat_page
from lorary.serving.shelf import Shelf
from lorary.serving.stand import Stand
from lorary.using.expert_map import map_experts

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_inspector(app: FastAPI, shelf: Shelf, guards: Sequence[Depends]) -> None:
    """Show the inspector at the root. The page itself holds nothing of the libraries, so it needs no key."""
    inspector = _Inspector(shelf)
    for path, endpoint, before in (
        ("/", inspector.page, ()),
        ("/inspector/about", inspector.about, guards),
        ("/inspector/map", inspector.map, guards),
        ("/inspector/{name}", inspector.asset, ()),
    ):
        app.add_api_route(
            path, endpoint, methods=["GET"], dependencies=list(before), response_model=None, include_in_schema=False
        )


class _Inspector:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._maps: dict[str, tuple[Stand, MapOfExperts]] = {}
        self._comparing = asyncio.Lock()  # one at a time: answers need the processor, too

    async def page(self) -> Response:
        return HTMLResponse(chat_page(), headers=_HEADERS)

    async def asset(self, name: str) -> Response:
        found = chat_asset(name)
        if found is None:
            return Response(status_code=404)
        return Response(found[0], media_type=found[1], headers=_HEADERS)

    async def about(self) -> dict[str, object]:
        libraries = [
            {"name": name, "models": _models(stand), "experts": list(stand.experts)}
            for name, stand in self._shelf.stands.items()
        ]
        return {"has_chat": self._shelf.base.tokenizer.chat_template is not None, "libraries": libraries}

    async def map(self, library: str) -> dict[str, object]:
        stands = self._shelf.stands
        if library not in stands:
            raise OptionError("E-NAME", f"there is no library {library!r}.", known_names(library, sorted(stands)))
        async with self._comparing:
            stand, found = stands[library], self._maps.get(library)
            if found is None or found[0] is not stand:
                found = self._maps[library] = stand, await asyncio.to_thread(map_experts, stand.experts)
        return found[1].to_json()


def _models(stand: Stand) -> list[dict[str, str]]:
    """Name each model once, the default first: several names may mean the same."""
    named = {found.desk: (name, found.router) for name, found in reversed(stand.found.items()) if not found.task}
    return [{"name": name, "router": router} for name, router in reversed(named.values())]
