"""One expert alone in a base, for a while."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from lorary.adapters.contract import Bank, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.model.attached.attachment import Attachment, attached
from lorary.model.base.base_model import BaseModel
from lorary.routing.contract import Gate
from lorary.routing.routers.uniform import Uniform


def alone(base: BaseModel, weights: Mapping[str, Weights]) -> AbstractContextManager[Attachment]:
    """Send every token of the base through one expert, given by its weights at each site, in the block."""
    parts: dict[str, tuple[Bank, Gate]] = {}
    for name, w in weights.items():
        site = base.routable[name]
        bank = LowRankBank([w], site).cast(base.dtype)
        device = base.device_of(name)
        parts[name] = (bank.to(device), Uniform().gate(site, {}, ["alone"]).to(device))
    return attached(base.hf, parts, "outputs")
