"""How fast a pack of experts trains by the tokens of a step, and what memory it takes: why packs are filled to 512.

    python benchmarks/pack_size.py [--dtype float32] [--rounds 5] [--base NAME] [TOKENS ...]

Experts of rank 4 on q, k, v, o, each with four rows of 32 random ids, one of which is the prompt. Prints, for each size
of a step, tokens per CPU second of one thread (median of rounds), the peak of this process's memory over what the base
takes, and what the pack keeps between steps: values, gradients, best values and AdamW's two moments, in float32.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from lorary.building.builders.private import Private
from lorary.building.training.loop import train
from lorary.building.training.packs import fresh_starts, packed
from lorary.building.training.trainable import Pupil
from lorary.model.base.base_model import load_base
from lorary.model.base.embedded_needs import EMBEDDED
from lorary.model.text.tokens import Encoded
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks

ROWS, LENGTH, STEPS = 4, 32, 2


def measure(base_name: str, dtype: str, n_experts: int, n_rounds: int) -> tuple[float, float, float]:
    """Tokens per CPU second; MiB at the peak over what the base takes, and MiB that the pack keeps."""
    base = load_base(base_name, device="cpu", dtype=dtype)
    options = Private(steps=STEPS, batch_size=ROWS, dropout=0.0)
    jobs = options.plan(Tasks(Task(f"t{i}", (Example("a", "b"),)) for i in range(n_experts)))
    generator = torch.Generator().manual_seed(1)
    before = _resident_mib("VmRSS")
    pupils, starts = [job.pupil(base) for job in jobs], fresh_starts(options, len(jobs), base)[1]
    with packed(pupils, base, starts, 0.0, options.lr, ROWS) as (trainable, _):
        trainable.pupils = [
            Pupil(f"t{i}", [_row(generator) for _ in range(8 * ROWS)], [], [0] * 8 * ROWS) for i in range(n_experts)
        ]
        rates = []
        for _ in range(n_rounds + 1):  # the first one warms
            began = time.process_time()
            with tempfile.TemporaryDirectory() as work:
                train(trainable, options, STEPS, Path(work))
            rates.append(STEPS * n_experts * ROWS * LENGTH / (time.process_time() - began))
        kept = sum(5 * stack.values.numel() * 4 for stack in trainable.stacks.values()) / 2**20
    return statistics.median(rates[1:]), _resident_mib("VmHWM") - before, kept


def _row(generator: torch.Generator) -> Encoded:
    ids = torch.randint(2, 8000, (LENGTH,), generator=generator).tolist()
    return Encoded(tuple(ids[:1]), tuple(ids[1:]))


def _resident_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", nargs="*", type=int, default=[128, 256, 512, 1024, 2048], metavar="TOKENS")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", default=EMBEDDED)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if len(given.tokens) == 1:
        rate, peak, kept = measure(given.base, given.dtype, given.tokens[0] // (ROWS * LENGTH), given.rounds)
        print(f"{given.tokens[0]:8} {rate:9.0f} {peak:10.0f} {kept:10.0f}")
        return
    print(f"{'tokens':>8} {'tokens/s':>9} {'peak MiB':>10} {'kept MiB':>10}", flush=True)
    for tokens in given.tokens:  # a process each: what one freed would hide what the next takes
        options = ["--dtype", given.dtype, "--rounds", str(given.rounds), "--base", given.base]
        subprocess.run([sys.executable, __file__, str(tokens), *options], check=True)


if __name__ == "__main__":
    main()
