"""Read mttl's files in a process with limits, and write what is in them as safetensors and JSON.

Started by its source, beside which nothing of lorary is imported. Its one argument, JSON: jobs, each [ckpt, meta, file
to write], and extra_bytes and cpu_s, what one job may take. It prints one line of JSON a job, in order.
"""

import contextlib
import json
import os
import re
import sys
from typing import Any

import torch
from safetensors.torch import save_file

try:
    import resource
except ImportError:  # Windows has no limits
    resource = None  # type: ignore[assignment]

_FIELDS = ("expert_name", "expert_task_name", "parent_node", "expert_model", "expert_deleted")
_SETTINGS = (
    "class_name", "__model_modifier__", "model_modifier", "lora_rank", "lora_alpha", "tie_params", "model",
)  # fmt: skip
_FACTOR = re.compile(r"(.+)\.lora_([ab])")
_MOST_LETTERS = 10_000


def main() -> None:
    """Do all jobs; whatever goes wrong with one is what is said of it."""
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    for ckpt, meta, target in asked["jobs"]:
        _limit(asked["extra_bytes"], asked["cpu_s"])
        try:
            told: dict[str, Any] = _read(ckpt, meta, target)
        except MemoryError:
            told = {"error": "it needs more memory than such a file may", "kind": "memory"}
        except Exception as error:  # a stranger's file may raise anything
            memory = "memory" in str(error) and isinstance(error, RuntimeError)
            told = {"error": f"{type(error).__name__}: {error}"[:2000], "kind": "memory" if memory else "content"}
        print(json.dumps(told), flush=True)


def _limit(extra_bytes: int, cpu_s: int) -> None:
    """Bound memory and time from here on, and forbid other processes, where the system can."""
    if resource is None:
        return
    with contextlib.suppress(OSError, ValueError):
        pages = int(open("/proc/self/statm", encoding="ascii").read().split()[0])  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra_bytes, -1))
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + cpu_s, -1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(ckpt: str, meta: str, target: str) -> dict[str, Any]:
    facts = _load(meta)
    if not isinstance(facts, dict):
        raise TypeError(f"the meta is a {type(facts).__name__}, expected a dict")
    told = _plain_entries(facts, _FIELDS)
    for part in ("expert_config", "training_config"):
        told[part] = _plain_entries(facts.get(part), _SETTINGS)
    if told.get("expert_deleted"):
        return told
    weights = _load(ckpt)
    if not isinstance(weights, dict) or not all(isinstance(k, str) and _is_dense(t) for k, t in weights.items()):
        raise TypeError("the ckpt is no dict of dense tensors by name")
    ties = str(told["expert_config"].get("tie_params") or told["training_config"].get("tie_params") or "")
    weights |= _missing_ties(weights, ties)
    told["others"] = sorted(name for name in weights if not _FACTOR.fullmatch(name))[:5]
    told["shapes"] = {name: list(tensor.shape) for name, tensor in weights.items()}
    if not told["others"] and all(tensor.dim() == 2 for tensor in weights.values()):
        # x A B there is B A x here: both factors lie the other way round.
        turned = {_peft_name(name): tensor.detach().t().contiguous().clone() for name, tensor in weights.items()}
        save_file(turned, target, metadata={"format": "pt"})
    return told


def _load(path: str) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _peft_name(name: str) -> str:
    site, factor = _FACTOR.fullmatch(name).groups()  # type: ignore[union-attr]
    return f"base_model.model.{site}.lora_{factor.upper()}.weight"


def _missing_ties(weights: dict[str, Any], ties: str) -> dict[str, Any]:
    """Give the tensors that aren't in the file because they are tied to one that is, in the same parent.

    As mttl does, the words between "|" are taken as the ends of names, without what makes them a pattern.
    """
    ends = ties.replace("\\", "").replace(".*", "").split("|") if ties else []
    if not all(re.fullmatch(r"[\w.]+", end) for end in ends):
        raise ValueError(f"tie_params {ties[:80]!r} can't be read as a list of names")
    found: dict[str, Any] = {}
    for name, tensor in weights.items():
        for end in ends:
            if name.endswith("." + end):
                parent = name.removesuffix(end)
                found |= {parent + other: tensor for other in ends if parent + other not in weights}
    return {name: tensor for name, tensor in found.items() if name[:-1] + {"a": "b"}.get(name[-1], "a") in weights}


def _is_dense(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized


def _plain_entries(given: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Copy the entries of these names whose values are plain; none of what is no dict."""
    return {name: given.get(name) for name in names if _is_plain(given.get(name))} if isinstance(given, dict) else {}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= _MOST_LETTERS and all(isinstance(one, str) for one in value)
    return value is None or (isinstance(value, str | int | float) and len(str(value)) <= _MOST_LETTERS)


if __name__ == "__main__":
    os.environ.clear()
    main()
