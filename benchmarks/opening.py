"""Open a library of adapters on 30 layers x q,k,v,o, prototypes included: seconds, and PEFT's create_arrow_model.

python benchmarks/opening.py [--experts 8 32 64 128 256] [--peft-most 32] [--rounds 3]
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import ArrowConfig, create_arrow_model
from subjects import ATTENTION, random_experts, smollm2_shape, twin
from timing import one_thread, save, table

from lorary.adapters.lora import LoRA
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.routed.route import route
from lorary.testing.pico import add_expert, pico_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 32, 64, 128, 256])
    parser.add_argument("--peft-most", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    one_thread()
    base = BaseModel(smollm2_shape(30), pico_tokenizer(), "smollm2-shape")
    with tempfile.TemporaryDirectory() as folder:
        rows = [_row(n, base, Path(folder), args) for n in args.experts]
    print(table(rows))
    print("written to", save("opening", rows, layers=30, sites=120, rank=4, rounds=args.rounds))


def _row(n: int, base: BaseModel, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    library = Library.create(folder / f"lib{n}", base=base.fingerprint)
    sites = {name: s for name, s in base.sites.items() if name.rpartition(".")[2] in ATTENTION}
    for name, weights in random_experts(sites, n).items():
        add_expert(library, name, base, LoRA(rank=4, alpha=8.0), weights)  # type: ignore[arg-type]
    directories = [str(library[name].directory) for name in sorted(library)]
    own, peft = [], []
    for _ in range(args.rounds):
        shutil.rmtree(library.path / "derived", ignore_errors=True)  # so that prototypes are computed every time
        own.append(_seconds(lambda: route(base, Library.open(library.path), "arrow:top_k=4", mix="outputs").detach()))
        if n <= args.peft_most:
            hf = twin(base.hf)
            # Prototypes are made at its first forward.
            peft.append(_seconds(lambda hf=hf: create_arrow_model(hf, directories, ArrowConfig(top_k=4))(_one_token())))
    row = {"experts": n, "own_s": median(own), "own_ms_each": 1000 * median(own) / n}
    row |= {"peft_s": median(peft) if peft else None, "times": median(peft) / median(own) if peft else None}
    print(row, flush=True)
    shutil.rmtree(library.path)
    return row


def _one_token() -> torch.Tensor:
    return torch.zeros(1, 1, dtype=torch.long)


def _seconds(run: Callable[[], Any]) -> float:
    start = time.thread_time()
    run()
    return time.thread_time() - start


if __name__ == "__main__":
    main()
