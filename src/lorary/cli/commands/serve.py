"""`lorary serve`: libraries over one base, behind OpenAI's HTTP interface."""

from typing import Annotated

import typer

from lorary.cli.models import check_base, load
from lorary.cli.options.loading import Loading
from lorary.cli.options.parameters import BaseOfLibrary, HowToMix, Mix, count_option, method_option
from lorary.cli.printing.console import say
from lorary.cli.serving import Sharing, serve_replicas


def serve(
    libraries: Annotated[list[str], typer.Argument(metavar="LIBRARY...", help="Libraries of one base.")],
    router: Annotated[
        list[str] | None,
        method_option("--router", "ROUTERS", "How to route (`list` shows all); compass by default; repeatable."),
    ] = None,
    mix: HowToMix = None,
    base: BaseOfLibrary = None,
    host: Annotated[str, typer.Option(help="Where to listen; other machines reach 0.0.0.0.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="LORARY_API_KEY", metavar="KEY", help="What clients must send.")
    ] = None,
    max_rows: Annotated[int, count_option("Answers at once, of each model.")] = 32,
    max_waiting: Annotated[int, count_option("Requests that may wait; others are refused (429).")] = 128,
    max_new_tokens: Annotated[int, count_option("Longest answer, in tokens.")] = 1024,
    allow_edits: Annotated[
        bool, typer.Option("--allow-edits", help="Let holders of the key load and unload experts, as vLLM does.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow experts that are added, replaced or removed on disk.")
    ] = False,
    allow_origin: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="A site whose pages may ask from a browser; repeatable.")
    ] = None,
    *,
    sharing: Sharing,
    how: Loading,
) -> None:
    """Serve libraries to OpenAI clients. Models: LIBRARY, LIBRARY:ROUTER, LIBRARY/EXPERT and base."""
    from lorary.extras import require_extra

    require_extra("serve", "lorary serve")
    from lorary.folder import DEFAULT_ROUTER, ROUTERS
    from lorary.library.library import Library

    specs = router or [DEFAULT_ROUTER]
    for spec in specs:
        ROUTERS.parse(spec)
    opened = [Library.open(path) for path in libraries]
    check_base(base, opened[0])
    if (where := sharing.where()) is not None:
        return serve_replicas(
            where, sharing, host=host, port=port, allow_edits=allow_edits, watch=watch, libraries=libraries,
            routers=specs, mix=mix and mix.value, base=base, loading=how.options, rows=max_rows, waiting=max_waiting,
            max_new_tokens=max_new_tokens, api_key=api_key, origins=tuple(allow_origin or ()),
        )  # fmt: skip

    from lorary.serving.app import Options
    from lorary.serving.run import run
    from lorary.serving.scheduler import Limits
    from lorary.serving.shelf import shelf
    from lorary.using.base_of import base_of

    options = Options(
        Limits(rows=max_rows, waiting=max_waiting), api_key, max_new_tokens, allow_edits=allow_edits,
        watch_s=1.0 if watch else None, tell=say, origins=tuple(allow_origin or ()),
    )  # fmt: skip
    loaded = load(base or base_of(opened[0]), how)
    with shelf(loaded, opened, specs, (mix or Mix.FACTORS).value, tell=say) as models:
        run(models, options, host=host, port=port, tell=lambda address: say(f"serving {', '.join(models.names[:6])}"
            f"{' ...' if len(models.names) > 6 else ''} at {address}/v1"))  # fmt: skip
    return None
