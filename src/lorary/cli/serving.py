"""Libraries served by replicas, as `lorary serve` asks for it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorary.cli.options.groups import Group
from lorary.cli.options.parameters import count_option, method_option
from lorary.cli.options.recipe_options import check_backend, choose_backend
from lorary.cli.printing.console import say
from lorary.errors import OptionError

if TYPE_CHECKING:
    from lorary.work.backends.ray import Ray

_OF_BUILDS = ("retries", "hang_s")


@dataclass(frozen=True)
class Sharing(Group):
    """How many servers share the work, and where they run."""

    replicas: Annotated[
        int | None, count_option("Servers that share the work behind one address; needs --backend ray.")
    ] = None
    backend: Annotated[
        str | None, method_option("--backend", "BACKENDS", "Where replicas run: ray, ray:address=auto,gpus=1, ...")
    ] = None

    def where(self) -> "Ray | None":
        """Give where replicas run; None: there are none, and this process serves. Raises usage errors, E-EXTRA."""
        if self.backend is None:
            if self.replicas is not None:
                raise typer.BadParameter("only Ray runs replicas: add --backend ray.", param_hint="--replicas")
            return None
        check_backend(self.backend)
        made = choose_backend(self.backend)
        from lorary.work.backends.ray import Ray

        if not isinstance(made, Ray):
            raise typer.BadParameter(f"{self.backend} runs no replicas; ray does.", param_hint="--backend")
        usual = Ray()
        for name in _OF_BUILDS:
            if getattr(made, name) != getattr(usual, name):
                raise typer.BadParameter(f"{name} is of builds: Ray Serve replaces what dies.", param_hint="--backend")
        return made


def serve_replicas(
    where: "Ray", sharing: Sharing, *, host: str, port: int, allow_edits: bool, watch: bool, **served: Any
) -> None:
    """Serve by replicas until this process is asked to end. `served`: as `Served` has it."""
    from lorary.extras import require_extra

    require_extra("replicas", "lorary serve --backend ray")
    from lorary.serving.edit_endpoints import EDITS_OF_REPLICAS
    from lorary.serving.ray_serve import Served, run

    if allow_edits:
        raise OptionError("E-OPTION", *EDITS_OF_REPLICAS)
    given = {name: value for name, value in served.items() if value is not None}
    asked = Served(
        replicas=sharing.replicas or 1, cpus=where.cpus, gpus=where.gpus, watch_s=1.0 if watch else None, **given
    )
    say(f"starting {asked.replicas} replica{'s' if asked.replicas > 1 else ''} ...")
    run(asked, where, host=host, port=port, on_ready=lambda address: say(f"serving at {address}/v1"), tell=say)
