"""Run by test_kernels.py in a process of its own: how far the Triton kernels are from the plain path, as JSON."""

import json
import os
import random

os.environ["TRITON_INTERPRET"] = "1"  # Triton looks at it once, when it is imported

import torch

from lorary.adapters.contract import Site, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.mixing import on_gpu
from lorary.adapters.mixing.mix import mix_low_rank
from lorary.routing.scored import keep_best, weigh_best

TRIALS = 24


def drawn(dice, generator):
    """Draw a bank of unequal experts and a call: sizes, ranks, precisions and who is absent are the dice's."""
    d_in, d_out, n = dice.choice([8, 40, 300]), dice.choice([8, 56, 260]), dice.choice([2, 5, 17])
    mix = dice.choice(["outputs", "factors"])
    one = dice.choice([1, 3, 8])
    ranks = [dice.choice([0, one] if mix == "factors" else [0, 1, 3, 8]) for _ in range(n - 1)] + [one]
    stored, base = (dice.choice([torch.float32, torch.bfloat16]) for _ in range(2))

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    weights = [Weights(random(r, d_in).to(stored), random(d_out, r).to(stored), dice.random() + 0.5) if r else None
               for r in ranks]  # fmt: skip
    bank = LowRankBank(weights, Site("layer", d_in, d_out))
    rows, tokens, k = dice.choice([1, 2]), dice.choice([1, 3, 40]), dice.randint(1, min(n, 4))
    x, y = random(rows, tokens, d_in).to(base), random(rows, tokens, d_out).to(base)
    experts = random(rows, tokens, n).topk(k)[1]
    shares = dice.choice([(rows, tokens), (1, 1)])
    return bank, x, y, torch.softmax(random(*shares, 1, k), -1), experts, mix


def mixes():
    """Compare mixtures with those of the plain path in float32: the largest difference over the largest number."""
    dice, generator, found = random.Random(3), torch.Generator().manual_seed(3), []
    for _ in range(TRIALS):
        bank, x, y, weights, experts, mix = drawn(dice, generator)
        told = mix_low_rank(bank, x, y, weights, experts, mix, "kernel")
        os.environ["TRITON_INTERPRET"] = "0"
        expected = mix_low_rank(bank, x.float(), y.float(), weights, experts, mix, "chosen")
        os.environ["TRITON_INTERPRET"] = "1"
        assert told.dtype == y.dtype and told.shape == y.shape
        apart = float((told.float() - expected).abs().max() / expected.abs().max())
        found.append([apart, str(y.dtype), mix])
    return found


def choices():
    """Say of several sizes whether the kept are those of the plain path, and how far their weights are."""
    generator, found = torch.Generator().manual_seed(4), []
    for n, k, temperature in ((2, 1, 1.0), (5, 4, 1.0), (64, 4, 0.3), (300, 7, 2.0), (1024, 4, 1.0)):
        scores = torch.randn(2, 3, n, generator=generator)
        scores[0, 0] = scores[0, 0].round()  # ties
        weights, index = weigh_best(scores, k, temperature)
        os.environ["TRITON_INTERPRET"] = "0"
        expected, kept = weigh_best(scores, k, temperature)
        assert torch.equal(keep_best(scores, k)[1], kept)
        os.environ["TRITON_INTERPRET"] = "1"
        found.append([bool(torch.equal(index, kept)), float((weights - expected).abs().max())])
    return found


if __name__ == "__main__":
    with torch.inference_mode():
        assert on_gpu.kernels_for(torch.ones(1)) is not None
        told = {"mixes": mixes(), "choices": choices()}
    told["with_gradients"] = on_gpu.kernels_for(torch.ones(1)) is None
    print(json.dumps(told))
