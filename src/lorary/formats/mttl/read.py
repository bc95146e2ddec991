"""A directory of mttl's files -> PEFT adapter directories, which are then judged as any stranger's. Imports no torch.

Both files of an expert are pickles. They are opened by torch.load(weights_only=True), which makes tensors and plain
values and nothing else, in a process of its own with bounded memory and time (`inside.py`). What that can't read is
refused. x A B alpha/r there is alpha/r B A x here, so the adapter computes the same.
"""

import json
import math
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lorary.disk.reading import open_regular
from lorary.errors import AdapterError, LibraryError, LoraryError, quote
from lorary.library.adapter.provenance import Provenance, write_provenance
from lorary.library.base_names import shared_name
from lorary.library.layout import CONFIG, WEIGHTS

FILES = ("*.ckpt", "*.meta")
_MOST_META_BYTES, _MOST_CKPT_BYTES = 16_000_000, 4_000_000_000
_MOST_PARTS = 100_000
_SPARE_BYTES, _CPU_S = 1 << 29, 120
_HINT = "Ask its author for safetensors, or convert it yourself where it may run code."


@dataclass(frozen=True)
class MttlExpert:
    """One expert of mttl's: its name there, and the PEFT directory made of it, or why there is none."""

    name: str
    directory: Path
    error: LoraryError | None = None


def is_mttl(directory: Path) -> bool:
    """Tell whether a directory is a library of mttl's: files of both kinds, by the same names."""
    return directory.is_dir() and any(path.with_suffix(".ckpt").exists() for path in directory.glob("*.meta"))


def read_mttl(directory: Path, into: Path) -> list[MttlExpert]:
    """Make a PEFT directory in `into` of every expert that isn't marked as deleted, in order of names."""
    into.mkdir(parents=True, exist_ok=True)
    names = sorted({path.stem for pattern in FILES for path in directory.glob(pattern)})
    found: dict[str, MttlExpert] = {}
    jobs: dict[str, tuple[Path, Path, Path]] = {}
    for number, name in enumerate(names):
        ckpt, meta, target = directory / f"{name}.ckpt", directory / f"{name}.meta", into / str(number)
        found[name] = MttlExpert(name, target)
        try:
            for path, most in ((meta, _MOST_META_BYTES), (ckpt, _MOST_CKPT_BYTES)):
                _judge_file(path, most)
            target.mkdir()
            jobs[name] = (ckpt, meta, target)
        except LoraryError as error:
            found[name] = MttlExpert(name, target, _named(name, error))
    for name, told in _read_all(jobs).items():
        try:
            if told.get("expert_deleted"):
                del found[name]
            else:
                _finish(told, found[name].directory)
        except LoraryError as error:
            found[name] = MttlExpert(name, found[name].directory, _named(name, error))
    return list(found.values())


def _named(name: str, error: LoraryError) -> LoraryError:
    return error.reworded(f"expert {quote(name)}: {error.message}", error.hint)


def _judge_file(path: Path, most: int) -> None:
    """Refuse a file that isn't as torch.save writes it, or that unpacks to more than it is. Reads its list of parts."""
    with open_regular(path) as file:
        size = file.seek(0, 2)
        if size > most:
            raise LibraryError("E-LIMIT", f"{path.name} has {size:,} bytes, the limit is {most:,}.")
        try:
            parts = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            what = f"{path.name} is no file as torch.save writes them since version 1.6."
            raise LibraryError("E-PICKLE", what, _HINT) from None
        packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
        if packed or len(parts) > _MOST_PARTS or sum(part.file_size for part in parts) > size:
            what = f"{path.name} would unpack to more than it is, which torch.save never writes."
            raise LibraryError("E-LIMIT", what, _HINT)


def _read_all(jobs: Mapping[str, tuple[Path, Path, Path]]) -> dict[str, dict[str, Any]]:
    """Have all files read; a process that a file ends is followed by one for the rest."""
    told: dict[str, dict[str, Any]] = {}
    left = list(jobs)
    while left:
        lines = _run([jobs[name] for name in left])
        told |= dict(zip(left, lines, strict=False))
        if len(lines) < len(left):
            told[left[len(lines)]] = {"error": "reading it took too much time or memory", "kind": "memory"}
        left = left[len(lines) + 1 :]
    return told


def _run(jobs: Sequence[tuple[Path, Path, Path]]) -> list[dict[str, Any]]:
    largest = max(path.stat().st_size for job in jobs for path in job[:2])
    named = [[str(ckpt), str(meta), str(target / WEIGHTS)] for ckpt, meta, target in jobs]
    asked = {"jobs": named, "extra_bytes": 4 * largest + _SPARE_BYTES, "cpu_s": _CPU_S}
    command = [sys.executable, "-I", "-c", _source(), json.dumps(asked)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False,
            timeout=_CPU_S * (len(jobs) + 2), text=True,
        )  # fmt: skip
        printed = done.stdout
    except subprocess.TimeoutExpired as late:
        printed = (late.stdout or b"").decode() if isinstance(late.stdout, bytes) else late.stdout or ""
    return [json.loads(line) for line in printed.splitlines(keepends=True) if line.endswith("}\n")]


@cache
def _source() -> str:
    return Path(__file__).with_name("inside.py").read_text(encoding="utf-8")


def _finish(told: Mapping[str, Any], directory: Path) -> None:
    """Write config and provenance beside the weights. Raises what keeps it from being a LoRA of ours."""
    if "error" in told:
        if told["kind"] == "memory":
            raise LibraryError("E-LIMIT", f"its files can't be read: {told['error']}.", _HINT)
        why = quote(" ".join(str(told["error"]).split()), 200)
        raise LibraryError("E-PICKLE", f"its files hold more than tensors and plain values: {why}.", _HINT)
    rank, alpha = _settings(told)
    sites = _sites(told, rank)
    model = told.get("expert_model") or told["training_config"].get("model")
    config = {
        "base_model_name_or_path": shared_name(model) if isinstance(model, str) else None,
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sites,
    }
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tasks, parent = told.get("expert_task_name"), told.get("parent_node")
    tasks = tasks.split(",") if isinstance(tasks, str) else tasks if isinstance(tasks, list) else []
    parents = (parent,) if isinstance(parent, str) and parent else ()
    made = Provenance(tuple(t.strip() for t in tasks if t.strip()), parents=parents, extra={"format": "mttl"})
    write_provenance(directory, made)


def _settings(told: Mapping[str, Any]) -> tuple[int, float]:
    """Find rank and alpha of what is LoRA. Raises E-FEATURE for another modifier, E-CONFIG."""
    config = told["expert_config"] or told["training_config"]
    form = str(config.get("class_name", "")).rpartition(".")[2]
    form = form if form.endswith("Config") and "Expert" not in form else ""
    form = form or config.get("__model_modifier__") or config.get("model_modifier")
    if form not in ("LoRAConfig", "lora"):
        what = f"its modifier is {quote(form)}, expected LoRA." if form else "its meta names no modifier."
        raise AdapterError("E-FEATURE", what, "Only LoRA experts of mttl can be taken in.")
    rank, alpha = config.get("lora_rank"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float) or not math.isfinite(alpha):
        what = f"its lora_rank is {quote(rank)} and its lora_alpha {quote(alpha)}, expected two numbers."
        raise LibraryError("E-CONFIG", what)
    return rank, float(alpha)


def _sites(told: Mapping[str, Any], rank: int) -> list[str]:
    if told["others"]:
        raise AdapterError("E-KEYS", f"{quote(told['others'][0])} is no factor of a LoRA.", "It can't be taken in.")
    for name, shape in told["shapes"].items():
        place = 1 if name.endswith("lora_a") else 0
        if len(shape) != 2:
            what = f"{quote(name)} has shape {shape}: a LoRA of several skills."
            raise AdapterError("E-FEATURE", what, "Only LoRA experts of mttl can be taken in.")
        if shape[place] != rank:
            raise AdapterError("E-RANK", f"{quote(name)} has rank {shape[place]}, its meta says {rank}.")
    if not told["shapes"]:
        raise AdapterError("E-KEYS", "its ckpt holds no tensor.")
    return sorted({name.rpartition(".lora_")[0] for name in told["shapes"]})
