"""The adapter in a model that somebody else's loop trains: found, looked at, written. Knows PEFT by its look alone."""

from pathlib import Path
from typing import Any

from torch import nn

from lorary.disk.processes import scratch
from lorary.errors import ModelError, OptionError, listed
from lorary.formats.tensor_file import filled_by_others
from lorary.library.adapter.check import BaseFacts
from lorary.library.adapter.expert import accept
from lorary.library.adapter.opened import open_adapter
from lorary.model.base.fingerprint import exact_facts, sign_facts, telling_layers
from lorary.model.sites import list_sites

_WRAPPERS = ("module", "_orig_mod")  # of DDP, of torch.compile
_PLAIN = "default"


class TrainedAdapter:
    """The one active adapter of a PEFT model.

    Raises E-OPTION for a model without one, or with several; E-DEVICE for one whose weights are in parts on several
    processes: none of them could write it.
    """

    def __init__(self, model: Any) -> None:
        self.model = _unwrapped(model)
        active = getattr(self.model, "active_adapters", None)
        if not hasattr(self.model, "peft_config") or not isinstance(active, list):
            what = f"the trainer trains a {type(self.model).__name__} without an adapter of PEFT."
            hint = "Give it peft.get_peft_model(model, LoraConfig(...)), or SFTTrainer a peft_config."
            raise OptionError("E-OPTION", what, hint)
        if len(active) != 1:
            what = f"the trained model has {len(active)} active adapters: {listed(active)}."
            raise OptionError("E-OPTION", what, "Make one active: model.set_adapter(name).")
        if any(map(_is_part, self.model.parameters())):
            what = "the trained weights are in parts on several processes (FSDP, ZeRO-3), and none can write them."
            hint = "Leave the callback out; save with trainer.save_model(DIR), then `lorary add LIBRARY DIR`."
            raise ModelError("E-DEVICE", what, hint)
        self.name: str = active[0]

    @property
    def base(self) -> Any:
        """The model beneath it, in whose layers the adapter still stands."""
        return self.model.get_base_model()

    @property
    def base_name(self) -> str:
        """How the base was asked for; "" if it was made in memory."""
        return str(getattr(self.base.config, "name_or_path", "") or "")

    def fingerprint(self) -> dict[str, Any]:
        """What tells the base from others, as `BaseModel.fingerprint`."""
        layers = map(_without_adapter, telling_layers(self.base, list_sites(self.base)))
        return {**exact_facts(self.base, list(layers)), **sign_facts(self.base)}

    def sizes(self) -> BaseFacts:
        """Give (d_in, d_out) of all layers that it may sit on."""
        return {name: (site.d_in, site.d_out) for name, site in list_sites(self.base).items()}

    def write(self, directory: Path) -> Path:
        """Let PEFT write it; gives where in `directory` its files are. Raises OSError, and what PEFT does."""
        with filled_by_others(directory):
            self.model.save_pretrained(str(directory), selected_adapters=[self.name], save_embedding_layers=False)
        return directory if self.name == _PLAIN else directory / self.name

    def check(self, name: str) -> None:
        """Refuse now what a library would refuse when all is trained: DoRA, biases, layers that can't be routed."""
        with scratch() as folder, open_adapter(self.write(folder / name)) as adapter:
            accept(adapter, name, base=self.sizes())


def _unwrapped(model: Any) -> Any:
    while not hasattr(model, "peft_config"):
        inner = next((part for name in _WRAPPERS if isinstance(part := getattr(model, name, None), nn.Module)), None)
        if inner is None:
            break
        model = inner
    return model


def _is_part(parameter: Any) -> bool:
    return hasattr(parameter, "ds_id") or hasattr(parameter, "device_mesh") or hasattr(parameter, "_is_flat_param")


def _without_adapter(layer: Any) -> Any:
    return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
