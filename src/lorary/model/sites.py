"""Which modules of a base an adapter may sit on, and which of them a target names."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorary.adapters.contract import Site
from lorary.errors import AdapterError, known_names
from lorary.library.adapter.targets import ALL_LINEAR

ATTENTION = "attention"
"""Stands in `targets` for all linear layers of the attention blocks, the output projection included (ATT+O)."""

_MODELS = "transformers.models."
_MIXTURE = ("has_gate", "has_bias", "has_post_expert_norm", "is_transposed", "_apply_gate", "num_experts")


def text_config(hf: PreTrainedModel) -> Any:
    """Give the config of what reads text: of a base that has eyes or ears beside, that of its language model."""
    config = hf.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def embedding_rows(hf: PreTrainedModel) -> int | None:
    """Count the rows of a base's embedding; None where it doesn't tell."""
    return getattr(hf.get_input_embeddings(), "num_embeddings", None)


def list_sites(hf: PreTrainedModel) -> dict[str, Site]:
    """List what is called as a linear layer is, whatever its class: quantised layers are called as any other.

    What is inside of one belongs to it. The head is left out, and what reads pictures or sounds.
    """
    head, text, sites = hf.get_output_embeddings(), _text_path(hf), dict[str, Site]()
    tried: dict[type, bool] = {}
    for name, module in hf.named_modules():
        widths = _widths(module)
        if not widths or module is head or not name.startswith(text):
            continue
        if _is_linear(module, *widths, tried) and not any(name.startswith(f"{outer}.") for outer in sites):
            sites[name] = Site(name, *widths)
    return sites


def list_slices(hf: PreTrainedModel) -> dict[str, Site]:
    """List the slices of fused experts: of each matrix that a mixture of experts keeps in one parameter with others.

    Of the modules that transformers computes in exchangeable ways (`use_experts_implementation`), whose forms are known
    by what they say of themselves.
    """
    text, slices = _text_path(hf), dict[str, Site]()
    for name, module in hf.named_modules():
        if not (name.startswith(text) and name.endswith(".experts") and is_mixture(module)):
            continue
        for parameter in mixture_parameters(module):
            n_slices, d_out, d_in = getattr(module, parameter).shape
            if module.is_transposed:
                d_in, d_out = d_out, d_in
            for number in range(n_slices):
                site = f"{name}.{parameter}.{number}"
                slices[site] = Site(site, d_in, d_out)
    return slices


def is_mixture(module: nn.Module) -> bool:
    """Tell whether a module computes fused experts in a form that is known, from plain matrices."""
    if not all(hasattr(module, name) for name in _MIXTURE):
        return False
    found = [module._parameters.get(name) for name in mixture_parameters(module)]
    return all(p is not None and p.dim() == 3 and p.is_floating_point() for p in found)


def mixture_parameters(module: nn.Module) -> tuple[str, str]:
    """Name the two parameters of a mixture, in the order in which a token passes them."""
    return ("gate_up_proj" if module.has_gate else "up_proj", "down_proj")


def choose_sites(sites: Mapping[str, Site], targets: Sequence[str], idle: frozenset[str]) -> list[Site]:
    """List the sites that targets name: last parts of module paths, whole paths, "attention" or "all-linear".

    idle: layers that the base never calls. The two words leave them out. Raises E-TARGET if a target names nothing.
    """
    chosen: dict[str, Site] = {}
    for target in targets:
        found = {name: site for name, site in sites.items() if _is_target(name, target)}
        if target in (ATTENTION, ALL_LINEAR):
            found = {name: site for name, site in found.items() if name not in idle}
        if not found:
            hint = _known_targets(target, sites, idle)
            raise AdapterError("E-TARGET", f"{target!r} names no linear layer of the base.", hint)
        chosen |= found
    return [chosen[name] for name in sites if name in chosen]


def require_called(sites: Mapping[str, Site], targets: Sequence[str], idle: frozenset[str]) -> None:
    """Refuse targets that name a layer which is never called, where an adapter would learn nothing. Raises E-TARGET."""
    for target in targets:
        chosen = choose_sites(sites, [target], idle)
        if unheard := [site.name for site in chosen if site.name in idle]:
            what = (
                f"{target!r} names {unheard[0]!r}, which this base never calls: it reads its weight, past any adapter."
            )
            raise AdapterError("E-TARGET", what, _known_targets(target, sites, idle))


def _known_targets(target: str, sites: Mapping[str, Site], idle: frozenset[str]) -> str:
    useful = [name for name in sites if name not in idle]
    words = [word for word in (ATTENTION, ALL_LINEAR) if any(_is_target(name, word) for name in useful)]
    return known_names(target, [*words, *sorted({name.rpartition(".")[2] for name in useful})])


def _text_path(hf: Any) -> str:
    """Give how the paths of what reads text begin: "" for a base that does nothing else."""
    if text_config(hf) is hf.config:
        return ""
    decoder = hf.get_decoder()
    path = next((name for name, module in hf.named_modules() if module is decoder), "")
    return f"{path}." if path else ""


def _widths(module: nn.Module) -> tuple[int, int] | None:
    """Give (d_in, d_out) of what has in_features and out_features, or GPT-2's nx and nf; None for anything else."""
    for names in (("in_features", "out_features"), ("nx", "nf")):
        widths = [getattr(module, name, None) for name in names]
        if all(type(width) is int for width in widths):
            return widths[0], widths[1]  # type: ignore[return-value]
    return None


def _is_linear(module: nn.Module, d_in: int, d_out: int, tried: dict[type, bool]) -> bool:
    """Tell whether a module answers as a linear layer does. One of a model's own classes is asked, one of each.

    A router of a mixture of experts may be a linear layer by its class, and return what it chose besides.
    """
    own = type(module)
    if not own.__module__.startswith(_MODELS):
        return True
    if own not in tried:
        weight = getattr(module, "weight", None)
        tried[own] = isinstance(weight, Tensor) and _answers(module, weight.new_zeros(2, d_in), d_out)
    return tried[own]


def _answers(module: nn.Module, x: Tensor, d_out: int) -> bool:
    try:
        with torch.no_grad():
            y = module(x)
    except (RuntimeError, TypeError, ValueError, LookupError):
        return False
    return isinstance(y, Tensor) and y.shape == (len(x), d_out)


def _is_target(name: str, target: str) -> bool:
    if target == ATTENTION:
        return any("attn" in part or "attention" in part for part in name.split(".")[:-1])
    return target == ALL_LINEAR or name == target or name.endswith("." + target)


@contextmanager
def input_hooks(hf: nn.Module, hooks: Mapping[str, Callable[[nn.Module, Any], None]]) -> Iterator[None]:
    """Call each hook, in the block, with the inputs of the layer of its name, before the layer computes."""
    handles = [hf.get_submodule(name).register_forward_pre_hook(hook) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def last_logits(hf: PreTrainedModel) -> dict[str, int]:
    """Give what makes a base compute the logits of each row's last token alone, where it can."""
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(hf.forward).parameters else {}
