"""How the next token of a row is chosen: greedily, or drawn with a seed of its own."""

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from lorary.evaluation.sampling import Sampling


class Sampler:
    """Chooses the tokens of one row, one after the other; on the CPU, so that a seed means the same on any device."""

    def __init__(self, options: Sampling) -> None:
        self.is_greedy = options.temperature == 0
        self._warpers = LogitsProcessorList()
        if not self.is_greedy:
            self._warpers.append(TemperatureLogitsWarper(float(options.temperature)))
            if options.top_k:
                self._warpers.append(TopKLogitsWarper(options.top_k))
            if options.top_p < 1:
                self._warpers.append(TopPLogitsWarper(options.top_p))
        self._generator = torch.Generator()
        if options.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(options.seed % 2**64)

    def draw(self, logits: Tensor) -> int:
        """Draw a token from logits (V,), float32."""
        shaped = self._warpers(torch.LongTensor(1, 0), logits.unsqueeze(0).cpu())
        return int(torch.multinomial(shaped.softmax(-1), 1, generator=self._generator))


def choose(logits: Tensor, samplers: list[Sampler]) -> list[int]:
    """Choose the next token of each row from logits (B, V)."""
    tokens: list[int] = logits.argmax(-1).tolist()
    for row, sampler in enumerate(samplers):
        if not sampler.is_greedy:
            tokens[row] = sampler.draw(logits[row].float())
    return tokens
