"""The gradients of experts that train together are PEFT's of each alone, in every family of models."""

import copy

import pytest
import torch
from golden_peft import ATTENTION, peft_only
from peft import LoraConfig, get_peft_model

from lorary.adapters.contract import Weights
from lorary.building.builders.private import Private
from lorary.building.training.packs import fresh_starts, packed
from lorary.model.text.scoring import row_losses
from lorary.model.text.tokens import pad
from lorary.testing.pico import ARCHITECTURES, pico_base

FEED_FORWARD = {"gpt2": ["c_fc"], "phi": ["fc1", "fc2"]}


def started(jobs, base, builder):
    """Start experts that change something: B isn't zero."""
    generator = torch.Generator().manual_seed(1)
    return [
        {s: Weights(w.a, torch.randn(w.b.shape, generator=generator) * 0.1, w.scale) for s, w in start.items()}
        for start in fresh_starts(builder, len(jobs), base)[1]
    ]


def gradients_of_peft(base, start, batch, builder):
    alone = copy.copy(base)
    alone.hf = copy.deepcopy(base.hf, {id(base): alone})
    is_gpt2 = base.hf.config.model_type == "gpt2"
    with peft_only():
        get_peft_model(alone.hf, LoraConfig(r=4, lora_alpha=16, target_modules=builder.targets, fan_in_fan_out=is_gpt2))
    factors = {}
    with torch.no_grad():
        for site, weights in start.items():
            layer = alone.hf.get_submodule(site)
            factors[site] = a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            a.copy_(weights.a), b.copy_(weights.b)
    row_losses(alone, batch).sum().backward()
    return {site: (a.grad, b.grad.T) for site, (a, b) in factors.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_of_a_pack_are_those_of_peft(architecture, toy):
    base = pico_base(architecture)
    with torch.no_grad():
        for name, parameter in base.hf.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
    targets = ATTENTION.get(architecture, ["q_proj", "k_proj", "v_proj", "o_proj"])
    builder = Private(steps=2, targets=(*targets, *FEED_FORWARD.get(architecture, ["up_proj", "down_proj"])))
    jobs = builder.plan(toy.only(["copy", "last"]))
    starts = started(jobs, base, builder)
    with packed([job.pupil(base) for job in jobs], base, starts, 0.0, 1e-3, 4) as (trainable, banks):
        rows = trainable.batch(0, [0, 1]) + trainable.batch(1, [0, 1, 2])
        with trainable.turn(rows):
            row_losses(base, pad([row.text for row in rows])).sum().backward()
        found = trainable.stacks["factors"].grad  # (2, all numbers of an expert, site by site)
    for expert, start in enumerate(starts):
        batch = pad([row.text for row in rows if row.owner == expert])
        of_peft = gradients_of_peft(base, start, batch, builder)
        expected = torch.cat([grad.flatten() for site in banks for grad in of_peft[site]])
        torch.testing.assert_close(found[expert], expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-3)


def test_a_tied_a_has_the_gradients_of_all_its_layers(toy):
    """As PEFT's, added up: one A that q, k and v share is heard in the three."""
    base, qkv = pico_base(), ("q_proj", "k_proj", "v_proj")
    builder = Private(steps=2, targets=(*qkv, "o_proj"), tie=qkv)
    jobs = builder.plan(toy.only(["copy"]))
    (start,) = started(jobs, base, builder)
    start |= {s: Weights(start[_q_beside(s)].a, w.b, w.scale) for s, w in start.items() if s.endswith(qkv)}
    with packed([job.pupil(base) for job in jobs], base, [start], 0.0, 1e-3, 4, qkv) as (trainable, banks):
        rows = trainable.batch(0, [0, 1])
        with trainable.turn(rows):
            batch = pad([row.text for row in rows])
            row_losses(base, batch).sum().backward()
        (found,) = trainable.stacks["factors"].grad
        assert banks[next(iter(banks))].a is banks[list(banks)[2]].a
    of_peft, expected = gradients_of_peft(base, start, batch, builder), []
    for site in banks:
        if site.endswith(("q_proj", "o_proj")):
            group = [s for s in banks if _q_beside(s) == site] if site.endswith("q_proj") else [site]
            expected.append(sum(of_peft[s][0] for s in group).flatten())
        expected.append(of_peft[site][1].flatten())
    expected = torch.cat(expected)
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-3)


def _q_beside(site):
    module, _, last = site.rpartition(".")
    return site if last == "o_proj" else f"{module}.q_proj"
