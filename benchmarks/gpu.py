"""Everything that is claimed of GPUs, measured on one in at most six minutes: correctness first, then speed.

python benchmarks/gpu.py [--dry-run] [--into FILE] [--seconds 360]

Each part has a time of its own and is written to FILE (JSON) when it is done; what fails, or finds no time left, says
so there, and the next one begins. Goals are compared at the end. `docs/gpu.md` has what was predicted.
"""

import argparse
import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from gpu_parts import PARTS, Scale

GOALS = {("prefill", 8): 1.10, ("prefill", 64): 1.15, ("prefill", 256): 1.30,
         ("decode", 8): 1.15, ("decode", 64): 1.20, ("decode", 256): 1.30}  # fmt: skip
"""Time over the base's at most, of a model of 8B shape."""
FASTER = {64: 3.0, 256: 10.0}
"""Times as fast as PEFT's Arrow at least."""
PACKED = 3.0
"""Times as fast as PEFT, one expert after another, at least."""


def main() -> None:
    args = _arguments()
    scale = Scale.tiny() if args.dry_run else Scale.whole()
    began, report = time.monotonic(), {"dry_run": args.dry_run, "facts": _facts(scale), "parts": {}}
    for name, (budget_s, part) in PARTS.items():
        left_s = args.seconds - (time.monotonic() - began)
        report["parts"][name] = _run(part, scale, budget_s, left_s)
        report["seconds"] = round(time.monotonic() - began, 1)
        _write(args.into, report)
        print(f"{report['seconds']:6.1f} s  {name}: {report['parts'][name]['state']}", flush=True)
    if not args.dry_run:  # of tiny shapes nothing was promised
        report["goals"] = _goals(report["parts"])
        _write(args.into, report)
        print(json.dumps(report["goals"], indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU, to see that all parts run")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    parser.add_argument("--seconds", type=float, default=360.0, help="for all parts together")
    return parser.parse_args()


def _facts(scale: Scale) -> dict[str, Any]:
    facts: dict[str, Any] = {"torch": torch.__version__, "device": str(scale.device)}
    if scale.device.type == "cuda":
        known = torch.cuda.get_device_properties(scale.device)
        facts |= {"gpu": known.name, "memory_gib": round(known.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    return facts


def _run(
    part: Callable[[Scale, float, list[Any]], None], scale: Scale, budget_s: float, left_s: float
) -> dict[str, Any]:
    """Run a part within its time; rows that it made before it failed are kept."""
    rows: list[Any] = []
    if left_s < budget_s / 4:
        return {"state": "left out: no time", "rows": rows}
    began = time.monotonic()
    try:
        part(scale, began + min(budget_s, left_s), rows)
        state = "done"
    except Exception:  # whatever one part meets, the others are measured
        state = f"failed: {traceback.format_exc(limit=-4)}"
    if scale.device.type == "cuda":
        torch.cuda.empty_cache()
    return {"state": state, "seconds": round(time.monotonic() - began, 1), "rows": rows}


def _write(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".tmp")
    staged.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    staged.replace(path)


def _goals(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Say of each goal what was found and whether that meets it; None: not measured."""
    models = [row for row in parts["models"]["rows"] if row["shape"] == "8B" and row["batch"] == 1]
    found = {(row["phase"], row["experts"]): row for row in models}
    goals = []
    for (phase, n), most in GOALS.items():
        own = (found.get((phase, n)) or {}).get("best_over_base")
        goals.append({"goal": f"{phase}, {n} experts: over the base at most {most}", "found": own, **_met(own, -most)})
    for n, least in FASTER.items():
        times = (found.get(("prefill", n)) or {}).get("peft_over_best")
        goals.append(
            {"goal": f"prefill, {n} experts: PEFT's time at least {least}", "found": times, **_met(times, least)}
        )
    packed = next((row["peft_over_packed"] for row in parts["training"]["rows"] if row["experts"] == 8), None)
    goals.append(
        {"goal": f"8 experts in a pack: PEFT's time at least {PACKED}", "found": packed, **_met(packed, PACKED)}
    )
    return goals


def _met(found: float | None, limit: float) -> dict[str, bool | None]:
    """limit: at least; negative: at most."""
    return {"met": None if found is None else found >= limit if limit > 0 else found <= -limit}


if __name__ == "__main__":
    main()
