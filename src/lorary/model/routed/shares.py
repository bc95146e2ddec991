"""How much of a plain text each expert takes: one that gets most of any text was made to, or drowns out the others.

A router that looks at hidden states sends a token to whoever's direction it follows. A prototype near the mean of all
states is followed by every token, so that one adapter among many takes most of them, whatever it was trained for.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lorary.model.attached.attachment import Attachment
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import Ensemble
from lorary.model.routed.trace import dense
from lorary.model.sites import input_hooks, last_logits
from lorary.routing.contract import Context, Gate

TEXT = (
    "The river was low that summer, and the boats lay on the sand. def area(w, h): return w * h  # 3.5 x 2 = 7\n"
    "Q: Which of these is a metal? (a) oak (b) iron (c) wool\nDear Ms Okafor, thank you for your letter of 12 May. "
    "Wenn es regnet, bleiben wir zu Hause. SELECT name FROM people WHERE age > 40; Le chat dort. "
    'Boil the rice for ten minutes, then add salt. 17, 19, 23, 29 ... {"ok": true, "items": []}'
)
"""A bit of everything: prose, code, numbers, questions, letters, several languages."""

_MOST_TOKENS = 160
_HALF = 0.5
_TOLD = frozenset({"task", "text", "survey"})
"""Needs of routers that must be told of a text: there is nothing to tell of this one."""


def takes_most(shares: dict[str, float]) -> list[str]:
    """Name the experts that take more of a plain text than any one of so many should."""
    most = max(_HALF, 2 / len(shares))
    return [name for name, share in shares.items() if share > most]


def shares_of(base: BaseModel, attachment: Attachment, ensemble: Ensemble) -> dict[str, float] | None:
    """Measure each expert's share of a plain text, the mean over its tokens and all sites; largest first.

    Of what the base alone makes of it: one call, on some hundred tokens, by each token alone (`Router.instant_gate`).
    Who listens nowhere, since it changes nothing, isn't counted. None where experts aren't chosen by scores
    alone.
    """
    gates = {site: _asked(base, ensemble, site, gate) for site, (_, gate) in attachment.parts.items()}
    if _TOLD & ensemble.router.needs or not any(hasattr(gate, "members") for gate in gates.values()):
        return None
    ids = base.tokenizer(TEXT, add_special_tokens=False)["input_ids"][: min(_MOST_TOKENS, base.max_tokens - 1)]
    heard: dict[str, list[Tensor]] = {site: [] for site in gates}
    listeners = {site: _listener(gate, heard[site], ensemble) for site, gate in gates.items()}
    with input_hooks(base.hf, listeners), torch.inference_mode(), attachment.bypassed():
        base.hf(input_ids=torch.tensor([ids], device=base.device), use_cache=False, **last_logits(base.hf))
    means = [torch.cat(weights).mean(0) for weights in heard.values() if weights]  # each (E,)
    shares = torch.stack(means).mean(0).tolist()
    listening = {i for gate in gates.values() for i in getattr(gate, "members", torch.zeros(0)).tolist()}
    return dict(sorted([(ensemble.names[i], shares[i]) for i in listening], key=lambda pair: -pair[1]))


def _asked(base: BaseModel, ensemble: Ensemble, site: str, gate: Gate) -> Gate:
    if not gate.keeps_evidence:
        return gate
    return ensemble.router.instant_gate(ensemble.sites[site], ensemble.state, ensemble.names).to(base.device_of(site))


def _listener(gate: Gate, heard: list[Tensor], ensemble: Ensemble) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def listen(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        h = args[0].reshape(1, -1, args[0].shape[-1])  # some blocks hand over (B * T, d)
        if h.shape[1]:
            heard.append(dense(gate(h, Context()), len(ensemble.names)))

    return listen
