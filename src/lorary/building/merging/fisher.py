"""What a task asks of an adapter: the diagonal of the Fisher information."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorary.adapters.lora import LoRA
from lorary.adapters.low_rank import LowRankBank
from lorary.building.training.batches import mix_seed
from lorary.model.attached.attachment import attached
from lorary.model.base.base_model import BaseModel
from lorary.model.text.scoring import row_losses
from lorary.model.text.tokens import pad
from lorary.routing.contract import Context
from lorary.routing.routers.oracle import Oracle
from lorary.tasks.example import Example


def fisher(base: BaseModel, examples: Sequence[Example], *, kind: LoRA, targets: Sequence[str], seed: int) -> Tensor:
    """Compute the mean over examples of (d log p(completion | prompt) / d b)^2 at a fresh adapter, (sum d_out r,).

    b: the output-side factors of all sites; a fresh adapter changes nothing, so that the input-side ones have no
    gradient. All tasks are seen from this one place, which makes them comparable. Rows of a batch pass through a copy
    of the adapter each, so that one backward pass gives every example's own gradient.
    Empirical: completions are the data's, not drawn from the model.
    """
    rows = base.encode(examples)
    sites = base.target_sites(targets)
    total = torch.zeros(sum(site.d_out * kind.rank for site in sites))
    for group in base.in_groups(rows, max_rows=8):
        batch = pad([rows[i] for i in group]).to(base.device)
        names = [str(i) for i in range(len(group))]
        banks = {}
        for site in sites:
            fresh = kind.fresh(site, torch.Generator().manual_seed(mix_seed(seed, site.name)))
            bank = LowRankBank([fresh] * len(group), site)
            banks[site.name] = bank.to(base.device)
            bank.b.requires_grad_(True)
        parts = {s.name: (banks[s.name], Oracle().gate(s, {}, names).to(base.device)) for s in sites}
        context = Context(experts=torch.arange(len(group), device=base.device))
        with attached(base.hf, parts, "outputs") as attachment, attachment.turn(context):
            row_losses(base, batch).sum().backward()
        squares = [
            b.b.grad.float().pow(2).unflatten(0, (len(group), -1)).sum(0)
            for b in banks.values()
            if b.b.grad is not None
        ]
        total += torch.cat([square.flatten() for square in squares]).cpu()
    return total / len(examples)
