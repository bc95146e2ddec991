"""What rows share is read once, and they score as each does alone, whoever routes."""

import pytest
import torch

from lorary.errors import ModelError
from lorary.model.base.calls import reads_in_parts
from lorary.model.decoding.sequences import Rows
from lorary.model.routed.route import route
from lorary.model.text.scoring import score
from lorary.tasks.example import Example
from lorary.testing.pico import pico_base

SHOTS = "Q: one and two? A: three.\nQ: blue sky? A: yes.\n"
EXAMPLES = [
    *(Example(f"{SHOTS}Q: {q}? A:", a, "copy" if "sky" in q else "last")
      for q in ("why is the sky blue", "who was there, and left", "b") for a in (" yes", " no, it is not", " x", "")),
    Example("alone", "yes", "first"), Example("the cup fell off the table as the cup", " was wet", "last"),
    Example("the cup fell off the table as the table", " was wet", "last"),
]  # fmt: skip
ROUTERS = ["uniform", "arrow:top_k=2", "compass:n_texts=4,n_tokens=8", "oracle", "task_predictor"]


@pytest.fixture
def read(base):
    """Count the tokens that the base reads, padding left out."""
    counted = []

    def count(_, args, kwargs):
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        counted.append(ids.numel() if mask is None else int(mask[:, -ids.shape[1] :].sum()))

    base.in_parts  # noqa: B018 - it reads a little itself, once
    hook = base.hf.register_forward_pre_hook(count, with_kwargs=True)
    yield counted
    hook.remove()


@pytest.mark.parametrize("router", ROUTERS)
def test_options_score_as_each_does_alone(base, toy_library, toy, router, read):
    with route(base, toy_library, router, tasks=toy) as model:
        alone = score(base, EXAMPLES, model.caller.about)
        read.clear()
        found = model.log_likelihood(EXAMPLES)
    for one, other in zip(found, alone, strict=True):
        assert one.nats == pytest.approx(other.nats, abs=2e-4) and one.n_tokens == other.n_tokens
    whole = sum(map(len, base.encode(EXAMPLES)))
    knows_more = router in ("oracle", "task_predictor")  # of a prompt than its first tokens tell
    if router != "task_predictor":  # which reads them itself too
        assert sum(read) < (0.6 if knows_more else 0.4) * whole


def test_small_batches_change_no_score_and_few_rows_are_read_at_once():
    base, rows = pico_base(), []
    examples = [example for example in EXAMPLES if example.completion]
    expected = base.log_likelihood(examples, open_end=True)
    base.hf.register_forward_pre_hook(lambda *args: rows.append(args[2]["input_ids"].shape), with_kwargs=True)
    base.batch_tokens = 60
    found = base.log_likelihood(examples, open_end=True)
    assert [one.n_tokens for one in found] == [one.n_tokens for one in expected]
    assert [one.nats for one in found] == pytest.approx([one.nats for one in expected], abs=2e-4)
    assert all(n == 1 or n * width <= 60 for n, width in rows) and sum(n for n, _ in rows) < 2 * len(examples)


def test_a_tree_that_memory_does_not_hold_is_read_row_by_row(base, monkeypatch):
    expected, fork, tried = base.log_likelihood(EXAMPLES), Rows.fork, []

    def scarce(self, rows):
        tried.append(len(rows))
        if len(tried) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return fork(self, rows)

    monkeypatch.setattr(Rows, "fork", scarce)
    for found, other in zip(base.log_likelihood(EXAMPLES), expected, strict=True):
        assert found.nats == pytest.approx(other.nats, abs=2e-4)
    assert len(tried) > 2


def test_a_row_too_large_for_memory_is_told_as_ever(base, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    assert base.in_parts
    monkeypatch.setattr(base.hf, "forward", fail)
    with pytest.raises(ModelError, match="E-MEMORY"):
        base.log_likelihood(EXAMPLES[:2])


@pytest.mark.parametrize(("family", "expected"), [("llama", True), ("gpt2", True), ("mistral", False)])
def test_a_base_is_asked_whether_it_reads_in_parts(family, expected):
    assert bool(reads_in_parts(pico_base(family).hf)) == expected


def test_rows_longer_than_where_rotations_change_are_read_whole():
    base = pico_base()
    base.hf.config.rope_parameters = {"rope_type": "longrope", "original_max_position_embeddings": 60}
    assert reads_in_parts(base.hf) == 60
