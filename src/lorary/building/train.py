"""One resumable training run of one pack: 1..N experts over one frozen base, in the same passes.

Rows of one batch belong to different experts; each row passes through its own expert only, each expert has its own
loss, gradient norm and best checkpoint, so it learns what it would learn alone (up to rounding).

Everything that a step needs follows from its number and the seed: which examples, which dropout, which learning rate.
So a checkpoint holds weights and optimiser state only, and a run that was killed anywhere ends byte for byte as one
that wasn't (same machine, same number of threads).
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lorary.adapters.low_rank import LowRankBank, LowRankWeights
from lorary.building.base import JobStep, Report
from lorary.building.batches import batch_rows, is_evaluation, mix_seed, schedule
from lorary.building.checkpoint import load_checkpoint, save_checkpoint
from lorary.errors import BuildError
from lorary.model.attach import Attachment, Slot
from lorary.model.base_model import BaseModel
from lorary.model.speaking import row_losses
from lorary.model.tokens import Encoded, by_length, encode, pad
from lorary.routing.base import Context
from lorary.routing.routers.oracle import Oracle

if TYPE_CHECKING:
    from lorary.building.training import TrainingJob

CHECKPOINT_EVERY_S = 10.0


@dataclass
class Curve:
    """How one expert's training went; losses in nats per completion token, one row of metrics per step."""

    best_loss: float = math.inf
    best_step: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _Run:
    """What a pack's run holds. Parameters are stacked over the pack: rows of expert i follow those of i - 1."""

    jobs: Sequence["TrainingJob"]
    base: BaseModel
    attachment: Attachment
    banks: dict[str, LowRankBank]
    train: list[list[Encoded]]
    valid: list[list[Encoded]]

    def __post_init__(self) -> None:
        self.options = self.jobs[0].options
        self.parameters = {f"{site}.{side}": getattr(bank, side) for site, bank in self.banks.items() for side in "ab"}
        self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=self.options.lr, weight_decay=0.0)
        self.curves = [Curve() for _ in self.jobs]

    def per_expert(self, stacked: Tensor) -> Tensor:
        """View a stacked tensor as (N, -1), one row per expert."""
        return stacked.view(len(self.jobs), -1)


def train(
    jobs: Sequence["TrainingJob"], base: BaseModel, work: Path, report: Report | None = None
) -> dict[str, tuple[dict[str, LowRankWeights], Curve]]:
    """Train a pack of LoRAs with equal options: loss on completions only, AdamW, best validation checkpoint kept.

    `work` receives checkpoint.safetensors; a run that finds one goes on from it. The base is left as it was.
    Gives each expert's weights by site, and its curve. Raises E-DIVERGED if a loss stops being a number.
    """
    with _adapted(jobs, base) as run:
        path = work / "checkpoint.safetensors"
        start = _resume(run, path)
        saved_at = time.monotonic()
        for step in range(start, jobs[0].n_steps):
            _step(run, step)
            if is_evaluation(step + 1, jobs[0].n_steps, run.options.n_evaluations):
                _evaluate(run, step + 1)
            _tell(run, step + 1, report)
            if time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
                _save(run, path, step + 1)
                saved_at = time.monotonic()
        if start < jobs[0].n_steps:
            _save(run, path, jobs[0].n_steps)  # so that a kill while the experts are written costs no training
        for name, p in run.parameters.items():
            p.data.copy_(run.best[name])
        return {
            job.name: ({site: bank.cpu().unpack(i) for site, bank in run.banks.items()}, run.curves[i])
            for i, job in enumerate(jobs)
        }


@contextmanager
def _adapted(jobs: Sequence["TrainingJob"], base: BaseModel) -> Iterator[_Run]:
    """Attach fresh trainable weights to the base for the time of a run."""
    options = jobs[0].options
    banks = {}
    for site in base.target_sites(options.targets):
        # The seed and the site alone: all experts start from the same A, without which neither averaging the factors
        # nor comparing them would mean anything.
        generator = torch.Generator().manual_seed(mix_seed(options.seed, site.name))
        fresh = options.kind.fresh(site, generator)
        bank = options.kind.pack([fresh] * len(jobs), site)
        assert isinstance(bank, LowRankBank)
        banks[site.name] = bank.requires_grad_(True).to(base.device)
    names = [job.name for job in jobs]
    parts = {name: (bank, Oracle().gate(base.sites[name], {}, names).to(base.device)) for name, bank in banks.items()}
    attachment = Attachment(base.hf, parts, Slot("outputs", dropout=options.dropout))
    try:
        rows = [encode(base.tokenizer, job.train, max_tokens=base.max_tokens) for job in jobs]
        valid = [encode(base.tokenizer, job.valid, max_tokens=base.max_tokens) for job in jobs]
        yield _Run(jobs, base, attachment, banks, rows, valid)
    finally:
        attachment.detach()


def _resume(run: _Run, path: Path) -> int:
    facts = load_checkpoint(path, run.parameters, run.best, run.optimizer)
    if facts is None:
        _evaluate(run, 0)
        return 0
    run.curves = [Curve(**curve) for curve in facts["curves"]]
    return int(facts["step"])


def _save(run: _Run, path: Path, step: int) -> None:
    facts = {"step": step, "curves": [asdict(curve) for curve in run.curves]}
    save_checkpoint(path, run.parameters, run.best, run.optimizer, facts)


def _step(run: _Run, step: int) -> None:
    o, base = run.options, run.base
    picked = [batch_rows(rows, o.batch_size, step, o.seed) for rows in run.train]
    batch = pad([rows[i] for rows, chosen in zip(run.train, picked, strict=True) for i in chosen]).to(base.device)
    owner = torch.repeat_interleave(torch.arange(len(picked)), torch.tensor([len(p) for p in picked])).to(base.device)
    rate = o.lr * schedule(step, run.jobs[0].n_steps, o.warmup)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    with run.attachment.turn(Context(experts=owner)), run.attachment.training(), _fast_attention(base):
        torch.manual_seed(mix_seed(o.seed, "dropout", step))
        n_tokens = _sums(batch.n_labels, owner, len(picked))
        losses = _sums(row_losses(base, batch), owner, len(picked)) / n_tokens
        losses.sum().backward()
    norms = _clip(run, o.clip)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    for i, (loss, norm, n) in enumerate(zip(losses.tolist(), norms.tolist(), n_tokens.tolist(), strict=True)):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            message = f"expert {run.jobs[i].name!r}: the loss is {loss} at step {step + 1}."
            raise BuildError("E-DIVERGED", message, f"Lower lr={o.lr}.")
        row = {"step": step + 1, "loss": loss, "lr": rate, "grad_norm": norm, "n_tokens": n}
        run.curves[i].rows.append(row)


def _sums(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """Add up per expert: values (B,) of each row -> (N,)."""
    return values.new_zeros(n).index_add(0, owner, values)


def _clip(run: _Run, limit: float) -> Tensor:
    """Scale each expert's gradient to at most `limit`; give the norms before, (N,)."""
    gradients = [run.per_expert(p.grad) for p in run.parameters.values() if p.grad is not None]
    norms = torch.stack([g.pow(2).sum(1) for g in gradients]).sum(0).sqrt()
    factor = (limit / (norms + 1e-6)).clamp(max=1).unsqueeze(1)
    for g in gradients:
        g.mul_(factor)
    return norms


def _evaluate(run: _Run, step: int) -> None:
    """Measure every expert's validation loss and keep its weights if they are its best so far (step 0 is for show)."""
    losses = _valid_losses(run)
    for i, (curve, loss) in enumerate(zip(run.curves, losses, strict=True)):
        if step == 0:
            curve.rows.append({"step": 0, "valid_loss": loss})
            continue
        curve.rows[-1]["valid_loss"] = loss
        value = loss if loss is not None else curve.rows[-1]["loss"]
        if value < curve.best_loss:
            curve.best_loss, curve.best_step = value, step
            for name, p in run.parameters.items():
                run.per_expert(run.best[name])[i] = run.per_expert(p.detach())[i]


def _valid_losses(run: _Run) -> list[float | None]:
    rows = [row for part in run.valid for row in part]
    owners = torch.tensor([i for i, part in enumerate(run.valid) for _ in part], dtype=torch.long)
    total, count = torch.zeros(len(run.jobs)), torch.zeros(len(run.jobs))
    for group in by_length(rows):
        batch, owner = pad([rows[i] for i in group]).to(run.base.device), owners[group]
        with torch.inference_mode(), run.attachment.turn(Context(experts=owner.to(run.base.device))):
            total.index_add_(0, owner, row_losses(run.base, batch).cpu())
        count.index_add_(0, owner, batch.n_labels.cpu().float())
    return [t / c if c else None for t, c in zip(total.tolist(), count.tolist(), strict=True)]


def _tell(run: _Run, step: int, report: Report | None) -> None:
    for job, curve in zip(run.jobs, run.curves, strict=True):
        if report:
            row = curve.rows[-1]
            report(JobStep(job.name, step, job.n_steps, row["loss"], row.get("valid_loss")))


@contextmanager
def _fast_attention(base: BaseModel) -> Iterator[None]:
    """Avoid the fused attention's backward on the CPU, slower there than plain products (measured: docs/log.md)."""
    if base.device.type != "cpu":
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield
