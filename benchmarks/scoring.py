"""Scoring options and writing answers, beside lm-evaluation-harness and transformers.

python benchmarks/scoring.py DATA [--items 40] [--rounds 3] [--batch 8] [--tokens 32]

DATA: a directory with hellaswag.jsonl[.gz] and arc_challenge.jsonl[.gz], whose rows have `context` or `question`, and
`choices`. Options are scored as the harness's `acc` does, by lorary and by the harness's HFLM over the same model: by
the latter in batches of so many rows, by lorary in such of as many tokens as the longest of those has. Answers are
written greedily to the same prompts by lorary and by transformers' `generate`, in batches of so many rows of similar
length; --tokens 0 leaves them out. One thread, float32, the embedded base; variants take turns. `tokens`: those of all
options with their prompts, padding left out, over those that lorary reads.
"""

import argparse
import gzip
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from timing import one_thread, save, table

from lorary.model.base.base_model import BaseModel, load_base
from lorary.tasks.example import Example

SETS = ("hellaswag", "arc_challenge")
Row = dict[str, Any]


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--sets", nargs="+", default=SETS)
    options = parser.parse_args()
    one_thread()
    base = load_base(dtype="float32")
    rows = []
    for name in options.sets:
        questions = read(options.data, name)[: options.items]
        rows.append({"what": f"scoring {name}"} | score(base, questions, options.batch, options.rounds))
        print(table(rows[-1:]), flush=True)
        if not options.tokens:
            continue
        prompts = [prompt for prompt, _ in questions]
        rows.append({"what": f"writing {name}"} | write(base, prompts, options.batch, options.tokens, options.rounds))
        print(table(rows[-1:]), flush=True)
    save("scoring", rows, items=options.items, batch=options.batch, tokens=options.tokens)


def read(directory: Path, name: str) -> list[tuple[str, list[str]]]:
    """Read questions and their options."""
    path = directory / f"{name}.jsonl"
    lines = (path.read_bytes() if path.exists() else gzip.decompress(Path(f"{path}.gz").read_bytes())).decode()
    rows: list[Row] = [json.loads(line) for line in lines.splitlines()]
    return [(r["context"] if "context" in r else f"Question: {r['question']}\nAnswer:", r["choices"]) for r in rows]


def score(base: BaseModel, questions: Sequence[tuple[str, list[str]]], batch: int, rounds: int) -> Row:
    """Score every option both ways; `difference` in nats is the largest of any option."""
    pairs = [(prompt, option) for prompt, options in questions for option in options]
    examples = [Example(f"{prompt} ", option) for prompt, option in pairs]
    theirs = HFLM(pretrained=base.hf, tokenizer=base.tokenizer, batch_size=batch)
    requests = [Instance("loglikelihood", {}, (p, f" {option}"), i) for i, (p, option) in enumerate(pairs)]
    variants = {
        "HFLM": lambda: theirs.loglikelihood(requests, disable_tqdm=True),
        "lorary": lambda: base.log_likelihood(examples, open_end=True),
    }
    rows = base.encode(examples, open_end=True)
    base.batch_tokens = batch * max(map(len, rows))  # what the longest of the harness's batches takes
    whole = sum(len(row) - 1 for row in rows)
    read_by_us, facts, (expected, found) = take_turns(base, variants, rounds, len(questions))
    base.batch_tokens = None
    return facts | {
        "tokens": whole / read_by_us,
        "difference": f"{max(abs(a[0] - b.nats) for a, b in zip(expected, found, strict=True)):.0e}",
    }


def write(base: BaseModel, prompts: Sequence[str], batch: int, n_tokens: int, rounds: int) -> Row:
    """Write answers both ways; `difference` is the share of answers that differ."""
    examples = [Example(prompt, "") for prompt in prompts]
    base.batch_tokens = batch * (max(len(base.tokenizer(prompt).input_ids) for prompt in prompts) + n_tokens)
    order = sorted(range(len(prompts)), key=lambda i: len(base.tokenizer(prompts[i]).input_ids))

    def theirs() -> list[str]:
        found: dict[int, str] = {}
        for start in range(0, len(order), batch):
            group = order[start : start + batch]
            given = base.tokenizer([prompts[i] for i in group], return_tensors="pt", padding=True, padding_side="left")
            with torch.inference_mode():
                ids = base.hf.generate(**given, max_new_tokens=n_tokens, do_sample=False)
            texts = base.tokenizer.batch_decode(ids[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
            found |= zip(group, texts, strict=True)
        return [found[i].strip() for i in range(len(prompts))]

    variants: dict[str, Callable[[], list[str]]] = {
        "transformers": theirs,
        "lorary": lambda: base.generate_text(examples, max_new_tokens=n_tokens),
    }
    _, facts, found = take_turns(base, variants, rounds, len(prompts))
    differing = sum(one != other for one, other in zip(*found, strict=True)) / len(prompts)
    base.batch_tokens = None
    return facts | {"tokens": None, "difference": f"{differing:.2f}"}


def take_turns(
    base: BaseModel, variants: dict[str, Callable[[], Any]], rounds: int, n: int
) -> tuple[int, Row, list[Any]]:
    """Time both in every round; give the tokens that lorary reads, items a second and their ratio, and what they found.

    A run takes seconds, so none is spent on warming up.
    """
    read: list[int] = []

    def count(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if (mask := kwargs.get("attention_mask")) is not None:  # the harness gives none
            read.append(int(mask[:, -kwargs["input_ids"].shape[1] :].sum()))

    base.in_parts  # noqa: B018 - found out once for a base, by reading a few tokens
    hook = base.hf.register_forward_pre_hook(count, with_kwargs=True)
    seconds: list[list[float]] = []
    for _ in range(rounds):
        found, row = [], []
        for run in variants.values():
            start = time.thread_time()
            found.append(run())
            row.append(time.thread_time() - start)
        seconds.append(row)
    hook.remove()
    other, ours = (median(column) for column in zip(*seconds, strict=True))
    ratios = sorted(row[0] / row[1] for row in seconds)
    facts = {"theirs/s": n / other, "lorary/s": n / ours, "times": median(ratios), "low": ratios[0], "high": ratios[-1]}
    return sum(read) // rounds, facts, found


if __name__ == "__main__":
    main()
