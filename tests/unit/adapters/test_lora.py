"""LoRA: fresh weights change nothing, a bank does what merging would, and PEFT's files give the same bytes back."""

import torch

from lorary.adapters.contract import Site
from lorary.adapters.lora import LoRA
from lorary.adapters.low_rank import LowRankBank
from lorary.formats.peft import read_weights, write_weights
from lorary.hashing import hash_file
from lorary.library.adapter.expert import read_expert
from lorary.testing.pico import randomised

SITE = Site("layers.0.q", 12, 10)
FORM = LoRA()


def hidden():
    return torch.randn(3, 7, SITE.d_in, generator=torch.Generator().manual_seed(1))


def three_experts():
    generator = torch.Generator().manual_seed(3)
    return [randomised(FORM.fresh(SITE, generator), generator) for _ in range(3)]


def added_by(bank, index, mix="outputs"):
    """What a bank adds to a layer's output if all weight is on one expert."""
    weights = torch.eye(bank.n_experts)[index][None, None, None]
    y = torch.randn(3, 7, SITE.d_out, generator=torch.Generator().manual_seed(2))
    return bank(hidden(), y, weights, None, mix) - y


def test_identity_at_birth():
    one, two = (FORM.fresh(SITE, torch.Generator().manual_seed(1)) for _ in range(2))
    assert not added_by(LowRankBank([one], SITE), 0).any()
    assert not one.delta().any()
    assert all(torch.equal(a, b) for a, b in zip(one.factors(), two.factors(), strict=True))


def test_merged_is_unmerged():
    weights = three_experts()[0]
    added = added_by(LowRankBank([weights], SITE), 0)
    torch.testing.assert_close(added, hidden() @ weights.delta().T, atol=1e-5, rtol=1e-5)


def test_one_hot_routing_is_the_expert_alone():
    experts = three_experts()
    bank = LowRankBank([*experts, None], SITE)
    for i, weights in enumerate(experts):
        alone = added_by(LowRankBank([weights], SITE), 0)
        for mix in ("outputs", "factors"):
            torch.testing.assert_close(added_by(bank, i, mix), alone, atol=1e-5, rtol=1e-5)
    assert not added_by(bank, 3).any()


def test_gradients_reach_only_the_expert():
    experts = three_experts()
    bank = LowRankBank(experts, SITE).requires_grad_(True)
    added_by(bank, 1).pow(2).sum().backward()
    moved = LowRankBank(experts, SITE)
    with torch.no_grad():
        for p, q in zip(moved.parameters(), bank.parameters(), strict=True):
            assert q.grad is not None
            p.sub_(q.grad)
    before = LowRankBank(experts, SITE)
    for i in range(3):
        assert torch.equal(added_by(moved, i), added_by(before, i)) == (i != 1)


def test_peft_round_trip(tmp_path):
    weights = three_experts()[0]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    write_weights(tmp_path / "one", FORM, {SITE.name: weights}, base_name="b")
    read = read_weights(read_expert(tmp_path / "one", "one"))
    write_weights(tmp_path / "two", FORM, read, base_name="b")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert hash_file(tmp_path / "one" / file) == hash_file(tmp_path / "two" / file)
    assert torch.equal(read[SITE.name].delta(), weights.delta())


def test_it_is_a_value():
    assert LoRA() == FORM
    assert hash(LoRA()) == hash(FORM)
    assert eval(repr(FORM), {"LoRA": LoRA}) == FORM
    assert LoRA.__dataclass_params__.frozen
