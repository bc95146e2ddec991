"""A pack of experts against one after another with PEFT: the same base, data, steps and optimiser, side by side.

    python benchmarks/training.py [--rounds 7] [--dtype float32] [NAME ...]

Prints the ratio of throughputs (PEFT's time / ours; CPU time of one thread, median over interleaved rounds) and the
largest difference of any gradient from PEFT's, relative to the largest gradient of its tensor. No text is read: rows
are random ids, of which all but the first are completion, so that both sides compute the same head. No dropout.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from lorary.building.builders.private import Private
from lorary.building.training.batches import batch_rows, schedule
from lorary.building.training.loop import train
from lorary.building.training.packs import fresh_starts, packed
from lorary.building.training.trainable import Pupil, Trainable
from lorary.model.base.base_model import BaseModel
from lorary.model.text.scoring import row_losses
from lorary.model.text.tokens import Encoded, pad
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks
from lorary.testing.pico import pico_tokenizer

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


@dataclass(frozen=True)
class Shape:
    """A base to train on."""

    hidden: int
    n_layers: int
    n_heads: int
    n_kv: int
    inner: int
    vocabulary: int

    def make(self, dtype: torch.dtype) -> torch.nn.Module:
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=self.hidden,
            num_hidden_layers=self.n_layers,
            num_attention_heads=self.n_heads,
            num_key_value_heads=self.n_kv,
            intermediate_size=self.inner,
            vocab_size=self.vocabulary,
            max_position_embeddings=512,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
        return AutoModelForCausalLM.from_config(config).to(dtype)


@dataclass(frozen=True)
class Case:
    """How many experts train, on how many rows of how many tokens a step, and the least ratio that is good."""

    shape: Shape
    n_experts: int
    n_rows: int
    n_tokens: int
    goal: float | None
    steps: int


SMOL = Shape(576, 8, 9, 3, 1536, 8192)  # SmolLM2-135M's layers, 8 of its 30
TINY = Shape(96, 4, 4, 2, 256, 512)
CASES = {
    "8x32": Case(SMOL, 8, 1, 32, 1.5, 3),
    "16x32": Case(SMOL, 16, 1, 32, None, 2),
    "32x32": Case(SMOL, 32, 1, 32, None, 1),
    "8x128": Case(SMOL, 8, 1, 128, 1.1, 2),
    "8x256": Case(SMOL, 8, 4, 64, 0.97, 1),
    "tiny-32x32": Case(TINY, 32, 1, 32, 4.0, 5),
}


class Ours:
    """The pack, trained by lorary's loop."""

    def __init__(self, case: Case, rows: list[list[Encoded]], trainable: Trainable, options: Private) -> None:
        self.case, self.trainable, self.options = case, trainable, options
        trainable.pupils = [Pupil(f"t{i}", own, [], [i] * len(own)) for i, own in enumerate(rows)]

    def steps(self) -> None:
        with tempfile.TemporaryDirectory() as work:
            train(self.trainable, self.options, self.case.steps, Path(work))

    def gradients(self) -> list[torch.Tensor]:
        """Gradients of each expert's own mean loss on its first rows, one vector per expert."""
        rows = [row for i in range(self.case.n_experts) for row in self.trainable.batch(i, range(self.case.n_rows))]
        batch = pad([row.text for row in rows])
        with self.trainable.turn(rows):
            (row_losses(self.trainable.model, batch).sum() / batch.n_labels[: self.case.n_rows].sum()).backward()
        grad = self.trainable.stacks["factors"].grad
        found = list(grad.clone())
        grad.zero_()
        return found


class Peft:
    """One expert after the other, as PEFT's users train: model(ids, labels), AdamW, clipping, a schedule."""

    def __init__(self, case: Case, rows: list[list[Encoded]], options: Private, dtype: torch.dtype) -> None:
        self.case, self.rows, self.options = case, rows, options
        config = LoraConfig(r=4, lora_alpha=16, lora_dropout=0.0, target_modules=TARGETS)
        self.model = get_peft_model(case.shape.make(dtype), config)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]

    def steps(self) -> None:
        for rows in self.rows:
            optimizer = torch.optim.AdamW(self.parameters, lr=self.options.lr, weight_decay=0.0)
            for step in range(self.case.steps):
                for group in optimizer.param_groups:
                    group["lr"] = self.options.lr * schedule(step, self.case.steps, self.options.warmup)
                self._loss([rows[i] for i in batch_rows(rows, self.case.n_rows, step, self.options.seed)]).backward()
                torch.nn.utils.clip_grad_norm_(self.parameters, self.options.clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

    def _loss(self, rows: list[Encoded]) -> torch.Tensor:
        ids = torch.tensor([row.prompt + row.completion for row in rows])
        return self.model(input_ids=ids, labels=ids).loss

    def gradients(self, trainable: Trainable) -> list[list[torch.Tensor]]:
        """The same experts' gradients on the same rows; each as tensors (a, b) by site."""
        found = []
        for i, rows in enumerate(self.rows):
            pairs = self._factors(trainable, i)
            with torch.no_grad():
                for ours, theirs in pairs:
                    theirs.copy_(ours)
            self._loss(rows[: self.case.n_rows]).backward()
            # Their output-side factor is (d_out, r), ours (r, d_out).
            found.append([p.grad.T if k % 2 else p.grad for k, (_, p) in enumerate(pairs)])
            self.model.zero_grad(set_to_none=True)
        return found

    def _factors(self, trainable: Trainable, expert: int) -> list[tuple[torch.Tensor, torch.nn.Parameter]]:
        pairs = []
        for site, layer in trainable.attachment.layers.items():
            theirs = self.model.get_submodule(f"base_model.model.{site}")
            pairs.append((layer.bank.a[expert], theirs.lora_A["default"].weight))
            pairs.append((layer.bank.b[expert].T, theirs.lora_B["default"].weight))
        return pairs


def largest_difference(ours: list[torch.Tensor], theirs: list[list[torch.Tensor]]) -> float:
    """Of all entries of all gradients, relative to the largest entry of their tensor."""
    worst = 0.0
    for vector, tensors in zip(ours, theirs, strict=True):
        parts = vector.split([t.numel() for t in tensors])
        for part, tensor in zip(parts, tensors, strict=True):
            worst = max(worst, float((part.view(tensor.shape) - tensor).abs().max() / tensor.abs().max()))
    return worst


def measure(case: Case, n_rounds: int, dtype: torch.dtype) -> tuple[list[float], float]:
    """The ratio of every round, and the largest difference of the gradients."""
    generator = torch.Generator().manual_seed(1)
    options = Private(steps=case.steps, batch_size=case.n_rows, dropout=0.0)
    rows = [[_row(case, generator) for _ in range(8 * case.n_rows)] for _ in range(case.n_experts)]
    jobs = options.plan(Tasks(Task(f"t{i}", (Example("a", "b"),)) for i in range(case.n_experts)))
    base = BaseModel(case.shape.make(dtype), pico_tokenizer(), "random")
    _, starts = fresh_starts(options, len(jobs), base)
    with packed([job.pupil(base) for job in jobs], base, starts, 0.0, options.lr, case.n_rows) as (trainable, banks):
        ours, peft = Ours(case, rows, trainable, options), Peft(case, rows, options, dtype)
        with torch.no_grad():
            for bank in banks.values():
                bank.b.normal_(std=0.02, generator=generator)
        difference = largest_difference(ours.gradients(), peft.gradients(trainable))
        cpu_s(ours.steps), cpu_s(peft.steps)  # warm
        return [cpu_s(peft.steps) / cpu_s(ours.steps) for _ in range(n_rounds)], difference


def _row(case: Case, generator: torch.Generator) -> Encoded:
    ids = torch.randint(2, case.shape.vocabulary, (case.n_tokens,), generator=generator).tolist()
    return Encoded(tuple(ids[:1]), tuple(ids[1:]))


def cpu_s(run: Callable[[], None]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'case':12} {'goal':>5} {'median':>7} {'lowest':>7} {'highest':>7}  gradients differ by")
    for name in given.names:
        ratios, difference = measure(CASES[name], given.rounds, getattr(torch, given.dtype))
        numbers = f"{CASES[name].goal or '-':>5} {statistics.median(ratios):7.2f} {min(ratios):7.2f} {max(ratios):7.2f}"
        print(f"{name:12} {numbers}  {difference:.1e}", flush=True)


if __name__ == "__main__":
    main()
