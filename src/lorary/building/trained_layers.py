"""Layers that are to be trained: refused where no step could do it, warned of where PEFT opens no adapter."""

from collections.abc import Sequence

from lorary.errors import ModelError
from lorary.model.base.base_model import BaseModel
from lorary.model.base.peft_limits import warn_of_peft
from lorary.model.sites import require_called


def require_trainable(base: BaseModel, targets: Sequence[str]) -> None:
    """Refuse targets that name nothing, or a layer that is never called (E-TARGET), and a spread base (E-DEVICE).

    What a step trains is one tensor, so it is in one place.
    """
    require_called(base.sites, targets, base.calls.idle)
    if len(places := {str(base.device_of(site.name)) for site in base.target_sites(targets)}) > 1:
        what = f"the base is spread over {', '.join(sorted(places))}, where experts are routed, but not trained."
        raise ModelError("E-DEVICE", what, "Load it on one device: without device_map.")


def warn_of_targets(base: BaseModel, targets: Sequence[str]) -> None:
    """Say, where it is so, that PEFT can't open adapters on these targets (W-PEFT)."""
    warn_of_peft(base.hf.config.model_type, [site.name for site in base.target_sites(targets)])
