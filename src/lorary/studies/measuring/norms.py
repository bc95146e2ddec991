"""How much larger the right expert's answer is than another's, at the same inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lorary.adapters.contract import Experts, Weights
from lorary.building.training.batches import mix_seed
from lorary.model.base.base_model import BaseModel
from lorary.model.base.calls import require_whole
from lorary.model.probes.lone import alone
from lorary.model.text.tokens import pad
from lorary.tasks.example import Example

WAYS = ("adapter", "layer")
"""What is measured: what an adapter adds, or the layer's whole answer, the base's and the adapter's."""


@dataclass(frozen=True)
class Norms:
    """The right expert's norm over another's on N examples of a task, of what the adapter adds and of the layer.

    adapter, layer: the ratio, its mean over the sites; adapter_log, layer_log: its logarithm, likewise.
    """

    task: str
    adapter: tuple[float, ...]
    layer: tuple[float, ...]
    adapter_log: tuple[float, ...]
    layer_log: tuple[float, ...]

    def __post_init__(self) -> None:
        """Compare the sizes."""
        if len({len(self.adapter), len(self.layer), len(self.adapter_log), len(self.layer_log)}) > 1 or not self.layer:
            raise ValueError("there must be as many ratios of each kind")


def compare_norms(
    base: BaseModel, experts: Experts, own: str, task: str, examples: Sequence[Example], *, seed: int
) -> Norms:
    """Send examples through their own expert; at every site ask another expert of the same input.

    The other is drawn for each example and site, among those that have the site; norms are means over the tokens of
    prompt and answer; sites where the other adds nothing are left out. Raises E-ROWS for a site that hears some of the
    tokens only.
    """
    here = {site: experts[own][site] for site in experts[own]}
    others = {site: [name for name in sorted(experts) if name != own and site in experts[name]] for site in here}
    here = {site: weights for site, weights in here.items() if others[site]}
    require_whole(base.calls, here)
    rows = base.encode(examples)
    ratios: dict[str, list[list[float]]] = {way: [[] for _ in rows] for way in WAYS}

    def draw(site: str, example: int) -> Weights:
        name = others[site][mix_seed(seed, own, task, example, site) % len(others[site])]
        weights: Weights = experts[name][site]
        return weights

    with alone(base, {site: experts[own][site] for site in experts[own]}) as attachment:
        for group in base.in_groups(rows):
            batch = pad([rows[i] for i in group]).to(base.device)
            listener = partial(_listen, ratios, here, draw, group, batch.mask.bool())
            hooks = [attachment.layers[site].register_forward_hook(partial(listener, site)) for site in here]
            try:
                with torch.inference_mode(), base.head_at(torch.zeros_like(batch.mask, dtype=torch.bool)):
                    base.hf(
                        input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
                    )
            finally:
                for hook in hooks:
                    hook.remove()
    means = {way: tuple(float(np.mean(found)) if found else 1.0 for found in ratios[way]) for way in WAYS}
    logs = {way: tuple(float(np.mean(np.log(found))) if found else 0.0 for found in ratios[way]) for way in WAYS}
    return Norms(task, means["adapter"], means["layer"], logs["adapter"], logs["layer"])


def _listen(
    ratios: Mapping[str, list[list[float]]],
    own: Mapping[str, Weights],
    draw: Callable[[str, int], Weights],
    group: Sequence[int],
    is_token: Tensor,
    site: str,
    _: nn.Module,
    args: tuple[Tensor, ...],
    output: Any,
) -> None:
    h = args[0].reshape(*is_token.shape, -1).float()  # some blocks hand over (B * T, d), or more axes
    y = output.reshape(*is_token.shape, -1).float()
    for row, example in enumerate(group):
        x, answer = h[row][is_token[row]], y[row][is_token[row]]  # (T, d_in), (T, d_out)
        right, other = _added(own[site], x), _added(draw(site, example), x)
        pairs = {"adapter": (right, other), "layer": (answer, answer - right + other)}
        for way, (one, another) in pairs.items():
            above, below = float(one.norm(dim=-1).mean()), float(another.norm(dim=-1).mean())
            if above > 0 and below > 0:
                ratios[way][example].append(above / below)


def _added(weights: Weights, x: Tensor) -> Tensor:
    """Compute what an expert adds to x (T, d_in): (T, d_out)."""
    a, b = (factor.to(x.device) for factor in weights.factors())
    added: Tensor = (x @ a.T) @ b.T
    return added
