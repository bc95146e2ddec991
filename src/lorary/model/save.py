"""Write a routed model to disk; `saved` tells the format."""

import json
import os
from pathlib import Path
from typing import Any, get_args

from lorary.adapters.tensor_file import write_tensors
from lorary.disk import need_space
from lorary.errors import OptionError, known_names
from lorary.hashing import hash_file
from lorary.library.arrival import arriving
from lorary.library.expert import copy_adapter, read_expert
from lorary.library.manifest import this_version
from lorary.model.base_model import BaseModel
from lorary.model.ensemble import Ensemble
from lorary.model.saved import MODEL, SCHEMA_VERSION, STATE, Keep, require_same
from lorary.options import as_dict


def save(base: BaseModel, ensemble: Ensemble, directory: Path | str, experts: Keep) -> Path:
    """Write a model to a new directory, whole or not at all. Raises E-OPTION, E-EXISTS, E-DISK, E-PERM, E-FILE."""
    if experts not in get_args(Keep):
        raise OptionError("E-OPTION", f"experts={experts!r} is unknown.", known_names(str(experts), get_args(Keep)))
    root = Path(directory).absolute()
    with arriving(root) as stage:
        if ensemble.state:
            write_tensors(ensemble.state, stage / STATE)
        if experts == "copy":
            need_space(stage, 4 * sum(expert.n_parameters for expert in ensemble.members.values()))
        for name, expert in ensemble.members.items():
            directory = stage / "experts" / name if experts == "copy" else expert.directory
            if experts == "copy":
                directory.mkdir(parents=True)
                copy_adapter(expert.directory, directory)
            require_same(read_expert(directory, name), expert.hash)  # what is on disk now may be another
        facts = _describe(base, ensemble, root, experts, stage / STATE)
        (stage / MODEL).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return root


def _describe(base: BaseModel, ensemble: Ensemble, root: Path, keep: Keep, state: Path) -> dict[str, Any]:
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
                "directory": f"experts/{name}" if copied else _relative(expert.directory, root),
            }
            for name, expert in ensemble.members.items()
        },
    }


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path.absolute(), root)).as_posix()
