"""`lorary add`: an adapter that others trained -> an expert of a library."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorary.cli.console import print_json, say
from lorary.cli.parameters import Json

if TYPE_CHECKING:
    from lorary.library.expert import Expert
    from lorary.library.library import Library


def add(
    library: Annotated[Path, typer.Argument(metavar="LIBRARY", help="The library; made if there is none.")],
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A PEFT adapter directory, or hf://user/repo[/folder][@revision].")
    ],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="What to call the expert.")],
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A task it was trained on; may be repeated.")
    ] = None,
    json: Json = False,
) -> None:
    """Check an adapter and copy it in. Settings, sizes and every number are checked before it counts."""
    from lorary.library.check import check
    from lorary.library.expert import read_expert
    from lorary.library.library import Library

    with tempfile.TemporaryDirectory(prefix="lorary-") as folder:
        directory = _fetched(source, Path(folder))
        found = read_expert(directory, name)
        findings = check(directory)  # warnings only: read_expert has raised the errors
        for finding in findings:
            say(f"warning[{finding.code}] {finding.message} {finding.hint}".rstrip())
        expert = _stage(Library.create(library, exist_ok=True), found, task or [], source)
    if json:
        shown = {"library": str(library), "expert": name, "findings": [vars(finding) for finding in findings]}
        return print_json(shown)
    print(f"{library}/{name}: rank {expert.rank}, {len(expert.sites)} sites")
    return None


def _fetched(source: str, folder: Path) -> Path:
    if "://" not in source:
        return Path(source)
    from lorary.library.sync import pull  # the network, and only for those who ask for it

    return pull(source, folder / "pulled")


def _stage(library: "Library", found: "Expert", tasks: list[str], source: str) -> "Expert":
    """Copy, look at the numbers of the copy, and only then let it become an expert: a NaN never gets in."""
    from lorary.adapters.peft_format import read_weights
    from lorary.disk import disk_errors, need_space
    from lorary.library.expert import copy_adapter, read_expert
    from lorary.library.findings import quote
    from lorary.library.layout import PROVENANCE

    known = found.provenance
    origin = {"source": source} if "://" in source else {}  # a local path would tell others of this machine
    provenance = dataclasses.replace(known, tasks=tuple(tasks) or known.tasks, extra={**known.extra, **origin})
    with library.stage(found.name) as stage:
        with disk_errors(f"expert {quote(found.name)}"):
            need_space(library.path, found.weights_path.stat().st_size)
            copy_adapter(found.directory, stage)
            (stage / PROVENANCE).write_bytes(provenance.to_json())
        read_weights(read_expert(stage, found.name))
    return library[found.name]
