"""A twin is another model over the same memory: nothing but memory is shared."""

import pytest
import torch

from lorary.model.routed.route import route
from lorary.tasks.example import Example
from lorary.testing.pico import random_library

IDS = torch.arange(2, 34).view(2, 16)


def logits(model, ids=IDS):
    with torch.inference_mode():
        return model(ids).logits


def plans(model):
    return [bank.plan for bank, _ in model._attachment.parts.values()]


def test_a_twin_shares_every_tensor(base, toy_library):
    with route(base, toy_library, "arrow") as model, model.twin() as twin:
        for (bank, gate), (other_bank, other_gate) in zip(
            model._attachment.parts.values(), twin._attachment.parts.values(), strict=True
        ):
            assert (bank is other_bank, gate is other_gate) == (False, False)
            assert bank.a.data_ptr() == other_bank.a.data_ptr()
            assert gate.vectors.data_ptr() == other_gate.vectors.data_ptr()
        assert torch.equal(logits(twin), logits(model))


@pytest.mark.slow
def test_how_a_twin_mixes_is_its_own_business(base, tmp_path):
    library = random_library(tmp_path / "lib", base, 70, targets=["q_proj"])  # so many that strategies are measured
    with route(base, library, "arrow:top_k=4") as model, model.twin() as twin:
        before, said = plans(model), logits(model)
        assert before[0].measured is not None
        twin.set_router("uniform")
        assert plans(twin) != before
        assert plans(model) == before
        assert torch.equal(logits(model), said)


def test_a_twin_made_while_its_model_scores_has_all_its_logits(base, toy_library):
    with route(base, toy_library, "arrow") as model:
        expected, twins = logits(model), []
        hook = base.hf.model.layers[1].register_forward_pre_hook(lambda *_: twins.append(model.twin()))
        model.log_likelihood([Example("hello there", "you"), Example("x", "y")])
        hook.remove()
        twins[0].base.hf.model.layers[1]._forward_pre_hooks.clear()
        assert torch.equal(logits(twins[0]), expected)
