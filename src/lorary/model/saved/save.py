"""Write a routed model to disk; `saved` tells the format."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from lorary.disk.arrival import arriving
from lorary.disk.reading import as_path
from lorary.disk.seal import seal
from lorary.disk.writing import need_space
from lorary.errors import OptionError, known_names, listed
from lorary.hashing import hash_file
from lorary.library.adapter.expert import Expert, copy_adapter, read_expert
from lorary.library.layout import EXPERTS
from lorary.library.manifest import this_version
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import Ensemble, Parts
from lorary.model.ensemble.state_file import write_state
from lorary.model.saved.format import MODEL, SCHEMA_VERSION, SEAL, STATE, Keep, about_state, require_same
from lorary.model.saved.trained import check_gates, trained_experts, write_present
from lorary.options import as_dict


def save(base: BaseModel, ensemble: Ensemble, parts: Parts, directory: Path | str, experts: Keep) -> Path:
    """Write a model to a new directory, whole or not at all.

    Experts that were trained in these parts are written as they are now. Raises E-OPTION, E-EXISTS, E-PATH, E-STATE,
    E-NONFINITE, E-DISK, E-PERM, E-FILE.
    """
    if experts not in get_args(Keep):
        raise OptionError("E-OPTION", f"experts={experts!r} is unknown.", known_names(experts, get_args(Keep)))
    root = as_path(directory)
    trained = trained_experts(ensemble, parts)
    if trained and experts == "refer":
        what = f'experts="refer": {listed(sorted(trained))} aren\'t as their files have them any more.'
        raise OptionError("E-OPTION", what, 'Save with experts="copy", which writes them as they are now.')
    check_gates(ensemble, parts)
    with arriving(root) as stage:
        if experts == "copy":
            need_space(stage, 4 * sum(expert.n_parameters for expert in ensemble.members.values()))
            for name, expert in ensemble.members.items():
                copy = stage / EXPERTS / name
                copy.mkdir(parents=True)
                if name in trained:
                    write_present(copy, name, ensemble, parts)
                else:
                    copy_adapter(expert.directory, copy)
        kept = {}
        for name, expert in ensemble.members.items():
            kept[name] = read_expert(stage / EXPERTS / name if experts == "copy" else expert.directory, name)
            if name not in trained:
                # What is on disk now may be another.
                require_same(kept[name], expert.copied_hash if experts == "copy" else expert.hash)
        if ensemble.state:
            about = about_state(ensemble.router, {name: expert.hash for name, expert in kept.items()})
            write_state(ensemble.state, stage / STATE, *about)
        facts = _describe(base, ensemble, root, experts, kept, stage / STATE)
        facts[SEAL] = seal("model", facts)
        (stage / MODEL).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return root


def _describe(
    base: BaseModel, ensemble: Ensemble, root: Path, keep: Keep, experts: Mapping[str, Expert], state: Path
) -> dict[str, Any]:
    options = as_dict(ensemble.router)
    copied = keep == "copy"
    return {
        "schema_version": SCHEMA_VERSION,
        "created_by": this_version(),
        "base": {"name": base.name, "dtype": base.identity["dtype"], "fingerprint": base.fingerprint},
        "router": {"name": options.pop("name"), "options": options},
        "mix": ensemble.mix,
        "state": {"sha256": hash_file(state), "size_bytes": state.stat().st_size} if ensemble.state else None,
        "library": None if copied else _relative(ensemble.library.path, root),
        "experts": {
            name: {
                "hash": expert.hash,
                "directory": f"{EXPERTS}/{name}" if copied else _relative(expert.directory, root),
            }
            for name, expert in experts.items()
        },
    }


def _relative(path: Path, root: Path) -> str:
    # Without links: ".." leads from where a directory is, not from what it was called.
    return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(root))).as_posix()
