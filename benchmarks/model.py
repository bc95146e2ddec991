"""A whole model of SmolLM2-135M's shape with a library routed into q, k, v and o: time over the base, and PEFT's Arrow.

python benchmarks/model.py [--experts 8 64 256] [--layers 30] [--rounds 11] [--mixes outputs factors] [--peft-most 64]

`compiled` is decoding with the optional operators, if `python -m lorary.adapters.mixing.compiled` has built them.
`--threads 2` takes the time of the clock on the wall.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from subjects import peft_arrow, routed_model, smollm2_shape, twin, without_operators
from timing import measure, save, table

from lorary.adapters.mixing import compiled

PROMPT = 512


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    rows = [
        row for n in args.experts for row in _rows(n, args, peft=n <= args.peft_most, dtype=getattr(torch, args.dtype))
    ]
    print(table(rows))
    print("written to", save(args.name, rows, layers=args.layers, k=4, rank=4, rounds=args.rounds, dtype=args.dtype))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1, help="with more than one, time is wall time")
    parser.add_argument("--peft-most", type=int, default=64, help="leave PEFT out above this number of experts")
    parser.add_argument("--prompts", type=int, default=1, help="prefill: the 512 tokens as so many prompts")
    parser.add_argument("--mixes", nargs="+", default=["outputs", "factors"])
    parser.add_argument("--phases", nargs="+", default=["prefill 512", "decode"])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--name", default="model")
    return parser.parse_args()


@torch.inference_mode()
def _rows(n: int, args: argparse.Namespace, *, peft: bool, dtype: torch.dtype) -> list[dict[str, Any]]:
    hf = smollm2_shape(args.layers, dtype)
    models = {"base": hf}
    for mix in args.mixes:
        models[mix], experts, state = routed_model(hf, n, mix=mix)
    if peft:
        models["peft"] = peft_arrow(twin(hf), experts, state)
    shape = (args.prompts, PROMPT // args.prompts)
    ids = torch.randint(0, 49152, shape, generator=torch.Generator().manual_seed(1))
    equal = _equal_rows(models["outputs"], models["peft"], dtype) if peft and "outputs" in models else None
    rows = []
    for phase in args.phases:
        found = measure(_PHASES[phase](models, ids), rounds=args.rounds)
        row = {"phase": phase, "experts": n, "base_ms": 1000 * found["base"]["seconds"]}
        row |= {name: found[name]["ratio"] if name in found else None for name in (*args.mixes, "compiled", "peft")}
        rows.append(row | {"peft_over_own": _times(row), "equal_rows": equal})
        print(rows[-1], flush=True)
    return rows


def _equal_rows(own: Any, peft: Any, dtype: torch.dtype) -> str:
    """Count prompts whose logits agree to 1e-4 of the largest: a tie decided by rounding changes a whole row."""
    ids = torch.randint(0, 49152, (16, 8), generator=torch.Generator().manual_seed(2))
    found, expected = own(ids).logits, peft(ids).logits
    n_equal = int(((found - expected).abs().amax((1, 2)) < 1e-4 * expected.abs().max()).sum())
    assert dtype != torch.float32 or n_equal >= 12, n_equal
    return f"{n_equal}/16"


def _times(row: dict[str, Any]) -> float | None:
    return row["peft"] / row["outputs"] if row["peft"] and "outputs" in row else None


def _plain(run: Callable[[], Any]) -> Callable[[], Any]:
    def go() -> Any:
        with without_operators():
            return run()

    return go


def _prefills(models: dict[str, Any], ids: torch.Tensor) -> dict[str, Any]:
    return {name: lambda m=m: m(input_ids=ids, use_cache=False, logits_to_keep=1) for name, m in models.items()}


def _decodes(models: dict[str, Any], ids: torch.Tensor) -> dict[str, Any]:
    """One token after 128, each time from the same cache."""
    variants = {}
    for name, model in models.items():
        cache = model(input_ids=ids[:1, :128], use_cache=True).cache

        def step(model: Any = model, cache: Any = cache) -> None:
            model(input_ids=ids[:1, -1:], cache=cache, use_cache=True)
            cache.crop(-1)

        variants[name] = step if name == "base" else _plain(step)
        if name == "outputs" and compiled.library_path().exists():
            variants["compiled"] = step
    return variants


_PHASES = {"prefill 512": _prefills, "decode": _decodes}


if __name__ == "__main__":
    main()
