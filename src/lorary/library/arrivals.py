"""How what was staged becomes an expert: copied from an open adapter or written by a builder, then checked."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorary.disk.writing import disk_errors, need_space, write_whole
from lorary.errors import listed, quote
from lorary.hashing import hash_file
from lorary.library import staging
from lorary.library.adapter.check import BaseFacts
from lorary.library.adapter.config import config_bytes, neutralised
from lorary.library.adapter.expert import Accepted, Expert, read_expert
from lorary.library.adapter.findings import raise_errors
from lorary.library.adapter.numbers import check_numbers
from lorary.library.adapter.opened import require_promised
from lorary.library.adapter.provenance import Provenance, require_same_base, write_metrics
from lorary.library.layout import CONFIG, PROVENANCE, Layout, inner_adapters
from lorary.library.manifest import this_version

_INNER = "W-INNER"
LibraryBase = Mapping[str, Any] | None  # its fingerprint


@dataclasses.dataclass
class Arrival:
    """A directory that is being filled, and the expert in it once it was checked."""

    stage: Path
    expert: Expert = dataclasses.field(init=False)


@contextlib.contextmanager
def arriving_expert(layout: Layout, name: str, *, replaces: bool) -> Iterator[Arrival]:
    """Give an empty directory; the expert that the block makes of it stands under its name when the block ends.

    replaces: in the place of the one that stands there. If the block raises, nothing remains.
    """
    doing, target = f"expert {quote(name)}", layout.expert(name)
    with disk_errors(doing):
        arrival = Arrival(staging.new_stage(layout.staging, name))
        target.parent.mkdir(exist_ok=True)
    try:
        yield arrival
        with disk_errors(doing):
            (staging.commit_over if replaces else staging.commit)(arrival.stage, target)
        arrival.expert = dataclasses.replace(arrival.expert, directory=target)
    finally:
        staging.discard(arrival.stage)


def warn_of_inner(source: Path) -> None:
    """Name the adapters in folders of an adapter's own directory: whoever adds that alone leaves them (W-INNER)."""
    if left := inner_adapters(source):
        what = f"{quote(source.name)} holds {len(left)} more adapters, which are left out: {listed(left)}."
        hint = "lorary.add(library, directory) takes them too."
        warnings.warn(f"warning[{_INNER}] {what} {hint}", RuntimeWarning, stacklevel=4)


def copy_in(
    accepted: Accepted, stage: Path, base: LibraryBase, provenance: Provenance | None, base_name: str | None,
    metrics: Sequence[Mapping[str, object]] = (),
) -> Expert:  # fmt: skip
    """Copy an accepted adapter, whose files are open, into a stage, with metrics.jsonl. Raises as `Library.add`."""
    source = accepted.expert
    with disk_errors(f"expert {quote(source.name)}"):
        need_space(stage, source.weights_path.stat().st_size)
        made = accepted.adapter.copy_to(stage, base_name=base_name)
        if metrics:
            write_metrics(stage, metrics)
    kept = made.provenance
    if provenance is not None:
        is_same = provenance.weights_sha256 == source.provenance.weights_sha256  # the copy's may be another
        kept = dataclasses.replace(provenance, weights_sha256=kept.weights_sha256) if is_same else provenance
    return _checked(Expert(source.name, stage, made.config, made.header, kept), made.sha256, base)


def accept_stage(stage: Path, name: str, base: LibraryBase, sizes: BaseFacts | None) -> Expert:
    """Read what a builder left in a stage, and leave out of its config what imports code. Raises as `Library.stage`."""
    expert = read_expert(stage, name, base=sizes)
    checked = _checked(expert, hash_file(expert.weights_path), base)
    config = neutralised(expert.config)
    if config != expert.config:
        with disk_errors(f"expert {quote(name)}"):
            write_whole(stage / CONFIG, config_bytes(config))
    return dataclasses.replace(checked, config=config)


def _checked(expert: Expert, sha256: str, base: LibraryBase) -> Expert:
    """Check what stands in the stage, not what was promised, and write its sha256 into expert.json."""
    made = expert.provenance
    raise_errors(check_numbers(expert.weights_path, expert.header), expert.name)
    require_same_base(made.base_fingerprint, base, expert.name)
    require_promised(sha256, made.weights_sha256 or sha256, expert.name)
    made = dataclasses.replace(made, weights_sha256=sha256, created_by=made.created_by or this_version())
    with disk_errors(f"expert {quote(expert.name)}"):
        write_whole(expert.directory / PROVENANCE, made.to_json())
    return dataclasses.replace(expert, provenance=made)
