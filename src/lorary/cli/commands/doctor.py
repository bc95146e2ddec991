"""`lorary doctor`: what is wrong with this installation, or with a library, and what to do."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorary.cli.exit_codes import FAILED
from lorary.cli.options.parameters import Json
from lorary.cli.printing.console import print_json, print_table

if TYPE_CHECKING:
    from lorary.using.doctor import Check


def doctor(
    libraries: Annotated[
        list[Path] | None, typer.Argument(metavar="LIBRARY...", help="Libraries to look at as well.")
    ] = None,
    json: Json = False,
) -> int | None:
    """Check packages, device, cache, disk, embedded base and libraries; say what to do where something is wrong.

    Nothing is fetched and no weights are loaded. Exit code 1 if something must be fixed.
    """
    from lorary.using.doctor import examine

    checks = [*examine(libraries or ()), _device()]
    if json:
        print_json({"checks": [vars(check) for check in checks]})
    else:
        print_table([(check.state, check.subject, _told(check)) for check in checks])
    return FAILED if any(check.state == "error" for check in checks) else None


def _told(check: "Check") -> str:
    return f"{check.found.removesuffix('.')}. {check.hint}" if check.hint else check.found


def _device() -> "Check":
    """Say where lorary computes by default, and in what precision: this imports torch, which may be broken."""
    from lorary.using.doctor import Check

    try:
        from lorary.model.base.device import describe_device

        return Check("device", "ok", describe_device())
    except (ImportError, OSError, RuntimeError) as error:  # a build for another machine raises any of these
        what = f"torch can't be used: {str(error).partition(chr(10))[0]}"
        return Check("device", "error", what, "Install torch again, as pytorch.org says for this machine.")
