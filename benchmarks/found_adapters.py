"""Hundreds of adapters that others made -> one routed model: time, memory and disk of each step.

    python benchmarks/found_adapters.py --adapters 260

Simulated: a tiny random base, and so many random adapters as they are found, of rank 4, 8 and 16 in turn, without
expert.json. Each step runs in a process of its own, on one thread, whose largest memory is told beside the bare
import's. Believe the CPU's seconds on a machine that others use.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import lorary as lo
from lorary.library.library import Library
from lorary.model.base.named_bases import remember_base
from lorary.testing.pico import pico_base, random_library

RANKS = (4, 8, 16)


def make(place: Path, n: int) -> None:
    """Write the base, and the adapters as directories beside one another."""
    base = pico_base()
    base.hf.save_pretrained(place / "base")
    base.tokenizer.save_pretrained(place / "base")
    made = random_library(place / "made", base, n, ranks=RANKS)
    for name, expert in made.items():
        copy = expert.copy_to(place / "found" / name)
        (copy / "expert.json").unlink()
        config = json.loads((copy / "adapter_config.json").read_text())
        (copy / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "someone/base"}))
    shutil.rmtree(place / "made")


def nothing(place: Path) -> None:
    """Import what the others import."""
    lo.load_base(str(place / "base"), device="cpu", dtype="float32")


def add(place: Path) -> None:
    """Check all and take them in."""
    remember_base(str(place / "base"))
    done = lo.add(place / "lib", place / "found", base=str(place / "base"), tasks=["{name}"])
    assert not done.refused


def svd(place: Path) -> None:
    """Bring all to one rank, so that factors can be mixed."""
    base = lo.load_base(str(place / "base"), device="cpu", dtype="float32")
    lo.build("svd:rank=8", lo.Tasks([]), base, source=Library.open(place / "lib"), into=place / "rank8")


def ask(place: Path, library: str, router: str, mix: str) -> None:
    """Fit the router, or find it fitted, and answer one prompt."""
    base = lo.load_base(str(place / "base"), device="cpu", dtype="float32")
    with lo.route(base, Library.open(place / library), router, mix=mix) as model:  # type: ignore[arg-type]
        model.explain("Why is the sky blue?")


STEPS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "load the base": (nothing, ()),
    "lorary add": (add, ()),
    "ask, arrow, mix=outputs": (ask, ("lib", "arrow", "outputs")),
    "the same again": (ask, ("lib", "arrow", "outputs")),
    "build svd:rank=8": (svd, ()),
    "ask, arrow, mix=factors": (ask, ("rank8", "arrow", "factors")),
}


def timed(step: str, place: Path, answers: "multiprocessing.Queue[tuple[float, float, float]]") -> None:
    """Run one step; tell seconds, those of the CPU, and the most memory in MB."""
    run, more = STEPS[step]
    torch.set_num_threads(1)
    cpu, start = time.process_time(), time.perf_counter()
    run(place, *more)
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    answers.put((seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6))


def size_mb(directory: Path) -> float:
    """Add up the files of a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=260)
    parser.add_argument("--skip", nargs="*", default=[], choices=STEPS, help="steps that aren't measured")
    args = parser.parse_args()
    n = args.adapters
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        make(place, n)
        size = size_mb(place / "found")
        print(f"{n} adapters, {size:.1f} MB\n")
        print("| step | seconds | of the CPU | most memory, MB |", "| :-- | --: | --: | --: |", sep="\n")
        for step in (step for step in STEPS if step not in args.skip):
            answers = context.Queue()
            process = context.Process(target=timed, args=(step, place, answers))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{step}: failed")
            seconds, cpu, memory = answers.get(timeout=10)
            print(f"| {step} | {seconds:.1f} | {cpu:.1f} | {memory:.0f} |", flush=True)
        print(f"\nthe library: {size_mb(place / 'lib'):.1f} MB")


if __name__ == "__main__":
    main()
