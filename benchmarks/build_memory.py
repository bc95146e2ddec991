"""What memory a build of experts takes, and what of it is in use: steps of all widths that the build has.

    python benchmarks/build_memory.py DATA [--trim] [--dtype bfloat16] [--packs 16] [--pass-tokens 1024]

DATA: as for experiments/evidence.py, whose first 16 private experts are planned; each width that a step of theirs has
is trained once, in the build's order, in one thread. Prints for each pack the resident memory at its start, at the peak
of its hungriest step and at its end, GiB; at the end tokens per CPU second, and what is left once the C library gave
back all that is free. --trim: it gives that back after each step, so that the peak is what is in use. Linux, glibc.
"""

import argparse
import ctypes
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from lorary.building.builders.private import Private
from lorary.building.training.batches import batch_rows
from lorary.building.training.job import TrainingJob
from lorary.building.training.loop import train
from lorary.building.training.packs import fresh_starts, packed
from lorary.building.training.trainable import Pupil
from lorary.model.base.base_model import load_base
from lorary.model.text.tokens import Encoded

BUILDER = Private(steps=48, batch_size=8, dropout=0.0, pack_tokens=1)


def steps(pupil: Pupil) -> Iterator[list[Encoded]]:
    """The rows of each step of an expert's training."""
    for step in range(BUILDER.steps or 0):
        yield [pupil.train[i] for i in batch_rows(pupil.train, BUILDER.batch_size, step, BUILDER.seed)]


def resident_gib(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--trim", action="store_true")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--packs", type=int, default=16)
    parser.add_argument("--pass-tokens", type=int, default=BUILDER.pass_tokens)
    given = parser.parse_args()
    sys.path.append(str(Path(__file__).parents[1] / "experiments"))
    from evidence_tasks import read_study_tasks

    torch.set_num_threads(1)
    one_step = replace(BUILDER, steps=1, pass_tokens=given.pass_tokens)
    give_back = ctypes.CDLL("libc.so.6").malloc_trim
    base, tasks = load_base(device="cpu", dtype=given.dtype), read_study_tasks(given.data)
    jobs = [job for job in BUILDER.plan(tasks.tasks.only(tasks.order[:16])) if isinstance(job, TrainingJob)]
    jobs.sort(key=lambda job: (job.typical_length(base), job.name))  # as in the build
    print(f"{'widths':>6} {'widest':>6} {'start':>6} {'peak':>6} {'end':>6}", flush=True)
    seen, n_tokens, began, peak = set[int](), 0, time.process_time(), 0.0
    for job in jobs[: given.packs]:
        start = hungriest = resident_gib("VmRSS")
        pupil, starts = job.pupil(base), fresh_starts(BUILDER, 1, base)[1]
        with packed([pupil], base, starts, 0.0, BUILDER.lr, BUILDER.batch_size) as (trainable, _):
            for rows in steps(pupil):
                width = max(map(len, rows))
                if width in seen:
                    continue
                seen.add(width)
                n_tokens += width * len(rows)
                trainable.pupils = [Pupil(job.name, rows, [], [0] * len(rows))]
                Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
                with tempfile.TemporaryDirectory() as work:
                    train(trainable, one_step, 1, Path(work))
                hungriest = max(hungriest, resident_gib("VmHWM"))
                if given.trim:
                    give_back(0)
        peak = max(peak, hungriest)
        end = resident_gib("VmRSS")
        print(f"{len(seen):6} {max(seen):6} {start:6.2f} {hungriest:6.2f} {end:6.2f}", flush=True)
    rate = n_tokens / (time.process_time() - began)
    give_back(0)
    print(f"peak {peak:.2f}, in use at the end {resident_gib('VmRSS'):.2f}; {rate:.0f} tokens/s")


if __name__ == "__main__":
    main()
