"""What training through a routed model changed: experts that aren't their files' any more, gates not their state's."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from lorary.adapters.contract import Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.disk.writing import write_whole
from lorary.errors import RoutingError
from lorary.formats.peft import write_factors
from lorary.hashing import hash_file
from lorary.library.adapter.config import config_bytes, neutralised
from lorary.library.adapter.provenance import Provenance
from lorary.library.layout import CONFIG, PROVENANCE, WEIGHTS
from lorary.library.manifest import this_version
from lorary.model.ensemble.ensemble import Ensemble, Parts


def trained_experts(ensemble: Ensemble, parts: Parts) -> set[str]:
    """Find the experts whose values in the banks aren't their files', in the dtype of the banks.

    All values are compared: whether a parameter wants gradients or was written to since says less, and misses writes
    through `.data`. It is one pass over numbers that are hashed anyway. Experts fetched on demand can't be trained.
    """
    return {name for site, bank in _banks(parts).items() for name in _changed(ensemble, site, bank)}


def _banks(parts: Parts) -> dict[str, LowRankBank]:
    return {site: bank for site, (bank, _) in parts.items() if isinstance(bank, LowRankBank)}


def _changed(ensemble: Ensemble, site: str, bank: LowRankBank) -> Iterator[str]:
    ranks = list(bank.layout.ranks)
    factors = (t.detach().cpu().split(ranks) for t in (bank.a, bank.b))
    for name, a, b in zip(ensemble.names, *factors, strict=True):
        stored = ensemble.experts[name].get(site)
        if stored is not None and not _holds(stored, a, b):
            yield name


def _holds(stored: Weights, a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, stored.a.to(a.dtype)) and torch.equal(b, stored.b.T.to(b.dtype))


def write_present(directory: Path, name: str, ensemble: Ensemble, parts: Parts) -> None:
    """Write an expert with the values it has in the banks, in their dtype; its config and tasks stay.

    Raises E-NONFINITE, with the place.
    """
    expert, index = ensemble.members[name], ensemble.names.index(name)
    weights = {site: bank.unpack(index) for site, bank in _banks(parts).items() if site in expert.sites}
    write_factors(directory, expert, weights)
    write_whole(directory / CONFIG, config_bytes(neutralised(expert.config)))
    provenance = Provenance(
        tasks=expert.provenance.tasks,
        builder={"name": "save"},
        base_fingerprint=expert.provenance.base_fingerprint,
        licence=expert.provenance.licence,
        parents=(f"{expert.name}@{expert.hash[:12]}",),
        created_by=this_version(),
        weights_sha256=hash_file(directory / WEIGHTS),
    )
    write_whole(directory / PROVENANCE, provenance.to_json())


def check_gates(ensemble: Ensemble, parts: Parts) -> None:
    """Refuse gates that the router's state would not give again. Raises E-STATE.

    Most are the state's own memory, and are trained with it. Others are computed from it, some slowly, so that only
    those which were written to since, or want gradients, are made once more and compared.
    """
    for site, (_, gate) in parts.items():
        now = _numbers(gate)
        if any(_is_touched(tensor) for tensor in now.values()):
            again = _numbers(ensemble.router.gate(ensemble.sites[site], ensemble.state, ensemble.names))
            if any(not torch.equal(again[name].cpu(), tensor.cpu()) for name, tensor in now.items()):
                what = f"the gate at {site!r} was trained, and its router's state can't hold that."
                raise RoutingError(
                    "E-STATE", what, "Take the router back with model.set_router(model.router), then save."
                )


def _numbers(gate: nn.Module) -> dict[str, Tensor]:
    named = {**dict(gate.named_parameters()), **dict(gate.named_buffers())}
    return {name: tensor for name, tensor in named.items() if tensor.is_floating_point()}


def _is_touched(tensor: Tensor) -> bool:
    return tensor.requires_grad or tensor.is_inference() or tensor._version > 0
