"""What every router promises: a test class to inherit from, with the fixture `router`."""

import torch
from safetensors.torch import load, save
from torch import Tensor

from lorary.adapters.low_rank import LowRankBank
from lorary.routing.contract import Context, Router, Routing
from lorary.testing.contracts.options import OptionsContract
from lorary.testing.fakes import (
    SITES,
    FakeProbe,
    dense,
    fake_context,
    fake_experts,
    numbers_of,
    one_row,
    route_with,
)

SITE = next(iter(SITES.values()))
SEEDS = {"ant": 0, "bee": 1, "cat": 2, "dog": 3, "eel": 4}
OWNERS = (0, 3, 4)


def _hidden(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(len(OWNERS), 7, SITE.d_in, generator=torch.Generator().manual_seed(1)).to(dtype)


def _context() -> Context:
    return fake_context(len(OWNERS), OWNERS)


def _classes_of(router: Router) -> set[type[Router]]:
    return {type(router)}.union(*map(_classes_of, router.inner))


def _among(router: Router, allowed: Tensor | None) -> tuple[Routing, int]:
    gate = router.gate(SITE, router.fit(fake_experts(SEEDS), SITES, FakeProbe(SEEDS)), sorted(SEEDS))
    h, context = _hidden(), _context()
    return gate(h, context) if allowed is None else gate.among(h, context, allowed), len(SEEDS)


def _total(routing: Routing, n_experts: int) -> tuple[Tensor, Tensor]:
    """Give a routing's weights over all experts, splits averaged, and its strength."""
    strength = torch.ones(()) if routing.strength is None else routing.strength
    return dense(routing, n_experts).mean(2), strength


class RouterContract(OptionsContract):
    """What a router promises. Needs the fixture `router`."""

    def test_weights_are_a_distribution(self, router: Router) -> None:
        """Each token's weights are not negative and sum to one."""
        weights = route_with(router, SEEDS, _hidden(), _context())
        assert bool((weights >= 0).all())
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))

    def test_the_order_of_experts_does_not_matter(self, router: Router) -> None:
        """Neither the order they come in, nor the order of their names."""
        state = router.fit(fake_experts(SEEDS), SITES, FakeProbe(SEEDS))
        shuffled = router.fit(dict(reversed(list(fake_experts(SEEDS).items()))), SITES, FakeProbe(SEEDS))
        assert state.keys() == shuffled.keys()
        assert all(torch.equal(state[name], shuffled[name]) for name in state)

        renamed = {f"{len(SEEDS) - i}-{name}": SEEDS[name] for i, name in enumerate(SEEDS)}  # now in reverse
        context = fake_context(len(OWNERS), [len(SEEDS) - 1 - owner for owner in OWNERS])
        found = route_with(router, renamed, _hidden(), context).flip(-1)
        torch.testing.assert_close(found, route_with(router, SEEDS, _hidden(), _context()))

    def test_a_lone_expert_gets_everything(self, router: Router) -> None:
        """With one expert in the library its weight is one."""
        weights = route_with(router, {"ant": 0}, _hidden(), fake_context(len(OWNERS), [0, 0, 0]))
        torch.testing.assert_close(weights, torch.ones_like(weights))

    def test_fit_does_not_touch_the_experts(self, router: Router) -> None:
        """Their numbers are the same before and after."""
        experts = fake_experts(SEEDS)
        before = numbers_of(experts)
        router.fit(experts, SITES, FakeProbe(SEEDS))
        assert all(torch.equal(a, b) for a, b in zip(before, numbers_of(experts), strict=True))

    def test_the_state_alone_reloads_the_same_bits(self, router: Router) -> None:
        """A gate from a stored state answers as the one from a fresh state, to the bit."""
        state = router.fit(fake_experts(SEEDS), SITES, FakeProbe(SEEDS))
        stored = load(save({name: t.contiguous() for name, t in state.items()}))
        gates = [router.gate(SITE, s, sorted(SEEDS)) for s in (state, stored)]
        first, second = (dense(gate(_hidden(), _context()), len(SEEDS)) for gate in gates)
        assert torch.equal(first, second)

    def test_refitted_is_fitted(self, router: Router) -> None:
        """After an expert came, went or changed, the state is the one of a fit from nothing, to the bit."""
        state = router.fit(fake_experts(SEEDS), SITES, FakeProbe(SEEDS))
        edits = {
            "came": ({**SEEDS, "bug": 7}, {"bug"}),
            "went": ({name: SEEDS[name] for name in ("ant", "cat", "dog", "eel")}, set[str]()),
            "changed": ({**SEEDS, "cat": 8}, {"cat"}),
        }
        for seeds, changed in edits.values():
            experts, probe = fake_experts(seeds), FakeProbe(seeds)
            expected = router.fit(experts, SITES, probe)
            found = router.refit(state, experts, SITES, probe, before=sorted(SEEDS), changed=changed)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in expected)

    def test_same_inputs_same_answer(self, router: Router) -> None:
        """Nothing is drawn or remembered between calls."""
        state = router.fit(fake_experts(SEEDS), SITES, FakeProbe(SEEDS))
        gate = router.gate(SITE, state, sorted(SEEDS))
        first, second = (dense(gate(_hidden(), _context()), len(SEEDS)) for _ in range(2))
        assert torch.equal(first, second)
        first, second = (route_with(router, SEEDS, _hidden(), _context()) for _ in range(2))
        assert torch.equal(first, second)

    def test_rows_are_independent(self, router: Router) -> None:
        """A row in a batch is routed as it is alone."""
        whole = route_with(router, SEEDS, _hidden(), _context())
        whole = whole.expand(len(OWNERS), *whole.shape[1:])
        for row in range(len(OWNERS)):
            alone = route_with(router, SEEDS, _hidden()[row : row + 1], one_row(_context(), row))
            torch.testing.assert_close(alone[0], whole[row])

    def test_tokens_see_no_later_tokens(self, router: Router) -> None:
        """What comes after a token does not change its routing."""
        changed = _hidden()
        changed[:, 4:] += 10
        before, after = (route_with(router, SEEDS, h, _context()) for h in (_hidden(), changed))
        torch.testing.assert_close(before[:, :4], after[:, :4])

    def test_dtype_in_is_dtype_out(self, router: Router) -> None:
        """A layer that computes in bfloat16 answers in bfloat16, and the routing is made in float32."""
        experts = fake_experts(SEEDS)
        bank = LowRankBank([experts[name][SITE.name] for name in SEEDS], SITE).cast(torch.bfloat16)
        gate = router.gate(SITE, router.fit(experts, SITES, FakeProbe(SEEDS)), sorted(SEEDS))
        x, y = _hidden(torch.bfloat16), torch.zeros(len(OWNERS), 7, SITE.d_out, dtype=torch.bfloat16)
        routing = gate(x, _context())
        assert routing.weights.dtype == torch.float32
        assert bank(x, y, routing.weights, routing.experts, "outputs").dtype == torch.bfloat16

    def test_its_repr_is_code(self, router: Router) -> None:
        """The repr can be pasted back."""
        assert eval(repr(router), {cls.__name__: cls for cls in _classes_of(router)}) == router

    def test_among_all_experts_it_chooses_as_ever(self, router: Router) -> None:
        """Where every expert is allowed, `among` gives what the gate gives."""
        allowed = torch.ones(len(OWNERS), 7, len(SEEDS), dtype=torch.bool)
        weights, strength = _total(*_among(router, allowed))
        expected, its_strength = _total(*_among(router, None))
        torch.testing.assert_close(weights.expand_as(allowed), expected.expand_as(allowed))
        torch.testing.assert_close(strength, its_strength)

    def test_among_some_experts_the_others_get_nothing(self, router: Router) -> None:
        """Whom `among` doesn't allow gets nothing, and who is allowed gets all of it, or nothing."""
        allowed = torch.rand(len(OWNERS), 7, len(SEEDS), generator=torch.Generator().manual_seed(6)) < 0.5
        allowed[0, 0] = False
        weights, _ = _total(*_among(router, allowed))
        weights = weights.expand_as(allowed)
        assert not weights[~allowed].any()
        assert bool((weights >= 0).all())
        sums = weights.sum(-1)
        torch.testing.assert_close(sums, sums.round())
        assert bool((sums <= 1.5).all()) and not sums[0, 0].any()

    def test_it_is_frozen(self, router: Router) -> None:
        """Equal options are equal objects."""
        self.check_options(router)
