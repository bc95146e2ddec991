"""One resumable training run: 1..N pupils over one model, in the same passes.

Rows of one batch belong to different pupils. Each has its own loss, gradient norm, best checkpoint and early stop, so
it learns what it would learn alone (up to rounding). An expert of a pack is a pupil; experts that are trained jointly
are one pupil together.

Everything that a step needs follows from its number and the seed: which examples, which dropout, which learning rate.
So a checkpoint holds weights and optimiser state only, and a run that was killed anywhere ends byte for byte as one
that wasn't (same machine, same number of threads).
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorary.adapters.sending import Fetched, sent
from lorary.building.contract import JobStep, Report
from lorary.building.training.batches import batch_rows, is_evaluation, mix_seed, schedule
from lorary.building.training.checkpoint import checkpoint_bytes, load_checkpoint, save_checkpoint
from lorary.building.training.curve import Curve
from lorary.building.training.measure import addends, count
from lorary.building.training.options import TrainingOptions
from lorary.building.training.stack import clip
from lorary.building.training.trainable import Row, Trainable, fast_attention, smaller_pass
from lorary.disk.writing import try_place
from lorary.errors import BuildError
from lorary.hashing import short_key
from lorary.model.text.batching import enough_tokens, halving, is_of_memory
from lorary.model.text.encoded_rows import lengths_of
from lorary.model.text.scoring import row_losses
from lorary.model.text.tokens import pad

CHECKPOINT_EVERY_S = 10.0
"""At least so much time between checkpoints; if one takes longer than a second, so many times as long as it took."""


class _Measured(NamedTuple):
    """What a step was: who took it, what is known of it, and losses and norms, which may be on their way."""

    live: Sequence[int]
    facts: dict[str, Any]
    n_tokens: list[int]
    numbers: Fetched


@dataclass
class _Run:
    """whole: the step that the state is of, None while it changes; saved: the step of the checkpoint.

    key: tells its checkpoint from those of other runs, whatever directory they lie in. pass_tokens: of the options, or
    fewer where memory holds no more. waiting: the last step, if nobody has asked yet what it was.
    """

    trainable: Trainable
    options: TrainingOptions
    n_steps: int
    report: Report | None

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(
            [{"params": [stack.values], "lr": stack.lr} for stack in self.trainable.stacks.values()],
            weight_decay=0.0,
            fused=True,
        )
        self.curves = [Curve() for _ in self.trainable.pupils]
        pupils = [(p.name, len(p.train), len(p.valid), sum(lengths_of(p.train))) for p in self.trainable.pupils]
        self.key = short_key(self.n_steps, self.options.seed, pupils)
        self.whole: int | None = 0
        self.saved = 0
        self.pass_tokens = self.options.pass_tokens
        self.waiting: list[_Measured] = []

    @contextmanager
    def changing(self, step: int) -> Iterator[None]:
        """Mark a block that changes what a checkpoint holds: a state interrupted in it is of no step and not saved."""
        self.whole = None
        yield
        self.whole = step

    @property
    def live(self) -> list[int]:
        """The pupils that haven't stopped early, nor diverged."""
        patience = self.options.patience
        going_on = (patience is None or curve.n_worse < patience for curve in self.curves)
        return [i for i, goes_on in enumerate(going_on) if goes_on and not self.curves[i].diverged]


def train(
    trainable: Trainable, options: TrainingOptions, n_steps: int, work: Path, report: Report | None = None
) -> list[Curve]:
    """Train all pupils: loss on completions only, AdamW. Gives each pupil's curve.

    Afterwards the parameters are those that `keep` says. `work` receives checkpoint.safetensors, from which a later run
    resumes. When interrupted, it saves the last whole step first. A pupil whose loss stops being a number leaves
    the others alone, and its curve says so. Raises E-DIVERGED if all do, and before the first step E-DISK, or OSError,
    if a checkpoint can't be written.
    """
    run = _Run(trainable, options, n_steps, report)
    path = work / "checkpoint.safetensors"
    try:
        _train_steps(run, path, _resume(run, path))
    except KeyboardInterrupt:
        if run.whole is not None and run.whole > run.saved:
            _save(run, path, run.whole)
        raise
    if all(curve.diverged for curve in run.curves):
        raise divergence(trainable.pupils[0].name, run.curves[0], options)
    for stack in trainable.stacks.values():
        stack.restore()
    return run.curves


def divergence(name: str, curve: Curve, options: TrainingOptions) -> BuildError:
    """Make an error of a curve that diverged."""
    return BuildError("E-DIVERGED", f"expert {name!r}: {curve.diverged}.", f"Lower lr={options.lr}.")


def _train_steps(run: _Run, path: Path, start: int) -> None:
    next_save = time.monotonic() + CHECKPOINT_EVERY_S
    for step in range(start, run.n_steps):
        live = run.live
        if not live:
            break
        _step(run, step, live)
        if is_evaluation(step + 1, run.n_steps, run.options.n_evaluations) or step + 1 == run.n_steps:
            _catch_up(run)
        live = [i for i in live if not run.curves[i].diverged]
        if is_evaluation(step + 1, run.n_steps, run.options.n_evaluations):
            _evaluate(run, step + 1, live)
        _report(run, step + 1, [i for i in live if not run.curves[i].diverged])
        if time.monotonic() >= next_save or not run.live or step + 1 == run.n_steps:
            # At the end too, so that a kill while the experts are written costs no training.
            began = time.monotonic()
            _save(run, path, step + 1)
            next_save = time.monotonic() + CHECKPOINT_EVERY_S * max(1.0, time.monotonic() - began)


def _resume(run: _Run, path: Path) -> int:
    found = load_checkpoint(path, run.key, run.trainable.stacks, run.optimizer)
    if found is None or found[0] < run.n_steps:
        try_place(path.parent, checkpoint_bytes(run.trainable.stacks))
    if found is None:
        _evaluate(run, 0, run.live)
        return 0
    step, run.curves = found
    run.whole = run.saved = step
    if is_evaluation(step, run.n_steps, run.options.n_evaluations):
        # None is left over unless the run was interrupted between the step and its validation.
        _evaluate(run, step, [i for i in run.live if "valid_loss" not in run.curves[i].rows[-1]])
    return step


def _save(run: _Run, path: Path, step: int) -> None:
    _catch_up(run)
    save_checkpoint(path, run.key, run.trainable.stacks, run.optimizer, step, run.curves)
    run.saved = step


def _step(run: _Run, step: int, live: Sequence[int]) -> None:
    o, trainable = run.options, run.trainable
    picked = {i: batch_rows(trainable.pupils[i].train, o.batch_size, step, o.seed) for i in live}
    rows = [row for i, chosen in picked.items() for row in trainable.batch(i, chosen)]
    pace = schedule(step, run.n_steps, o.warmup, from_zero=o.warmup_from == "zero")
    for group, stack in zip(run.optimizer.param_groups, trainable.stacks.values(), strict=True):
        group["lr"] = pace * stack.lr
    n_tokens = [sum(len(row.text.completion) for row in rows if row.owner == i) for i in range(len(run.curves))]
    counts = [sum(count(row.text, o.loss) for row in rows if row.owner == i) for i in range(len(run.curves))]
    losses = _fitting(run, rows, counts, mix_seed(o.seed, "dropout", step))
    norms = clip(list(trainable.stacks.values()), o.clip)
    rate = pace * next(iter(trainable.stacks.values())).lr
    measured = _Measured(live, {"step": step + 1, "lr": rate}, n_tokens, Fetched(losses, norms))
    # Another device is never waited for: what this step was is asked a step later.
    due, waiting = ([measured], []) if trainable.model.device.type == "cpu" else (run.waiting, [measured])
    # Before anything changes, since the answer may be waited for: until then an interrupt finds a whole step.
    told = [(one, one.numbers.read()) for one in due]
    with run.changing(step + 1):
        run.optimizer.step()
        for one, numbers in told:
            _note(run, one, *numbers)
        run.waiting = waiting
    for stack in trainable.stacks.values():
        stack.grad.zero_()


def _catch_up(run: _Run) -> None:
    """Note what nobody has asked for yet."""
    for one in run.waiting:
        _note(run, one, *one.numbers.read())
    run.waiting = []


def _fitting(run: _Run, rows: Sequence[Row], counts: Sequence[int], dropout_seed: int) -> Tensor:
    """Make the gradients of a step, in passes that memory holds (W-MEMORY). Raises E-MEMORY for a row alone."""
    while True:
        try:
            return _gradients(run, rows, counts, dropout_seed)
        except RuntimeError as error:
            if not is_of_memory(error):
                raise
        run.pass_tokens = smaller_pass(run.trainable, rows, run.pass_tokens)


def _gradients(run: _Run, rows: Sequence[Row], counts: Sequence[int], dropout_seed: int) -> Tensor:
    """Make the gradients of a step, in as many passes as needed; give each pupil's loss in nats per token, (N,).

    counts: (N,) what the measure of the loss counts in each pupil's rows.
    """
    trainable, device = run.trainable, run.trainable.model.device
    divisor = sent(torch.tensor(counts), device).clamp(min=1)
    total = torch.zeros(len(counts), device=device)
    # In order within a pass; a row longer than a pass is one.
    groups = trainable.model.in_groups([r.text for r in rows], max_tokens=run.pass_tokens, max_rows=len(rows))
    for part in map(sorted, groups):
        seen = [rows[i] for i in part]
        batch = pad([row.text for row in seen]).to(device)
        with trainable.turn(seen, dropout_seed=dropout_seed, mask=batch.mask), fast_attention(trainable.model):
            added = addends(row_losses(trainable.model, batch), batch.n_labels, run.options.loss)
            losses = _sums(added, trainable.rows.owner, len(counts)) / divisor
            penalty = trainable.penalty() * len(seen) / len(rows) if trainable.penalty else 0.0
            (losses.sum() + penalty).backward()
        total += losses.detach()
    return total


def _sums(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """Add up per pupil: values (B,) of each row -> (N,)."""
    return values.new_zeros(n).index_add(0, owner, values)


def _note(run: _Run, measured: _Measured, losses: list[float], norms: list[float]) -> None:
    facts = measured.facts
    for i in measured.live:
        for what, value in (("the loss", losses[i]), ("its gradient's norm", norms[i])):
            if not math.isfinite(value):
                run.curves[i].diverged = f"{what} is {value} at step {facts['step']}"
                break
        if run.curves[i].diverged:
            continue
        row = {**facts, "loss": losses[i], "grad_norm": norms[i], "n_tokens": measured.n_tokens[i]}
        run.curves[i].rows.append(row)


def _evaluate(run: _Run, step: int, live: Sequence[int]) -> None:
    """Measure validation losses and keep each pupil's weights if they are what `keep` says so far."""
    losses = _valid_losses(run, live)
    with run.changing(step):
        for i, loss in zip(live, losses, strict=True):
            _note_validation(run, step, i, loss)


def _note_validation(run: _Run, step: int, i: int, loss: float | None) -> None:
    curve = run.curves[i]
    if loss is not None and not math.isfinite(loss):
        curve.diverged = f"the validation loss is {loss} at step {step}"
        return
    if step == 0:
        curve.rows.append({"step": 0, "valid_loss": loss})
        if run.options.keep == "best_or_start" and loss is not None:
            curve.best_loss, curve.lowest = loss, loss  # a stack's best values are the first ones
        return
    curve.rows[-1]["valid_loss"] = loss
    value = loss if loss is not None else curve.rows[-1]["loss"]
    curve.n_worse += 1
    is_best = value < curve.lowest
    if is_best:
        curve.lowest, curve.n_worse = value, 0
    if is_best or run.options.keep == "last":
        curve.best_loss, curve.best_step = value, step
        for stack in run.trainable.stacks.values():
            stack.keep(i)


def _valid_losses(run: _Run, live: Sequence[int]) -> list[float | None]:
    trainable = run.trainable
    rows = [row for i in live for row in trainable.validation(i)]
    total, divisor = torch.zeros(len(run.curves)), torch.zeros(len(run.curves))
    texts, device = [row.text for row in rows], trainable.model.device

    def measure(part: list[int]) -> list[Tensor]:
        batch = pad([texts[i] for i in part])
        with torch.inference_mode(), trainable.turn([rows[i] for i in part]):
            losses = row_losses(trainable.model, batch.to(device))
        return [addends(losses, sent(batch.n_labels, device), run.options.loss)]

    groups = trainable.model.in_groups(texts, enough=enough_tokens(device))
    for part, (added,) in [found for group in groups for found in halving(group, measure, texts)]:
        owner = torch.tensor([rows[i].owner for i in part])
        counts = torch.tensor([count(texts[i], run.options.loss) for i in part])
        total.index_add_(0, owner, added.cpu())
        divisor.index_add_(0, owner, counts.float())
    return [float(total[i] / divisor[i]) if divisor[i] else None for i in live]


def _report(run: _Run, step: int, live: Sequence[int]) -> None:
    if run.report is None:
        return
    still = set(run.live)
    for i in live:
        row = run.curves[i].rows[-1]
        reached = step if i in still else run.n_steps  # who stops early is done
        valid_loss = row.get("valid_loss") if row["step"] == step else None  # the last row may be of the step before
        report = JobStep(run.trainable.pupils[i].name, reached, run.n_steps, row.get("loss"), valid_loss)
        run.report(report)
