"""What makes a base this base, so that another of the same shape is noticed, in whatever precision either is."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorary.errors import ModelError
from lorary.hashing import short_key
from lorary.model.sites import text_config

_EXACT = (torch.float32, torch.bfloat16)
_ROWS, _SIGN_ROWS = 64, 1024


def size_facts(hf: PreTrainedModel) -> dict[str, object]:
    """Give architecture, sizes and vocabulary: what is known of a base whose weights nobody read."""
    config = text_config(hf)
    return {
        "architecture": type(hf).__name__,
        "hidden_size": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "vocab_size": config.vocab_size,
    }


def telling_layers(hf: PreTrainedModel, sites: Iterable[str]) -> list[nn.Module]:
    """Give the layers whose weights tell a base from others of its shape: its first, middle and last one."""
    names = list(sites)
    return [hf.get_submodule(names[i]) for i in (0, len(names) // 2, -1) if names]


def exact_facts(hf: PreTrainedModel, layers: Sequence[nn.Module]) -> dict[str, object]:
    """Give architecture, sizes, vocabulary and a hash of a few of its weights: those of `layers` and the embedding.

    In float32 and bfloat16 the hash is the same, `weights`: that of the numbers in bfloat16. All else was rounded
    otherwise, so it is hashed as it is stored, under a key that names how: only what is stored alike is compared.
    """
    require_numbers(hf)
    facts = size_facts(hf)
    embedding: Any = hf.get_input_embeddings()  # of whatever class
    weights: list[Any] = [getattr(layer, "weight", None) for layer in layers] + [embedding.weight]
    if all(_is_plain(w) and w.dtype in _EXACT for w in weights):
        return facts | {"weights": hash_tensors(w.bfloat16() for w in _beginnings(weights))}
    if all(_is_plain(w) and w.dtype == weights[0].dtype and w.is_floating_point() for w in weights):
        name = str(weights[0].dtype).removeprefix("torch.")
        return facts | {f"weights_{name}": hash_tensors(_beginnings(weights))}
    stored = [piece for layer in layers for piece in _stored(layer)]
    stored += [("embedding", embedding.weight[:_ROWS])] if _is_plain(embedding.weight) else _stored(embedding)
    form = short_key([(name, str(t.dtype), list(t.shape)) for name, t in stored])
    return facts | {f"weights_quantised_{form[:8]}": hash_tensors(t for _, t in stored)}


def sign_facts(hf: PreTrainedModel, n_rows: int | None = None) -> dict[str, object]:
    """Give a hash of the signs in the embedding: no rounding changes a sign, so any two precisions can be compared.

    Empty where the embedding is quantised. n_rows: how many of its rows count; by default all.
    """
    embedding: Any = hf.get_input_embeddings()
    weight = embedding.weight
    if not (_is_plain(weight) and weight.is_floating_point()):
        return {}
    weight = weight[:n_rows]
    return {"embedding_signs": hash_tensors([weight.detach()[:: max(1, len(weight) // _SIGN_ROWS)].signbit()])}


def require_numbers(hf: PreTrainedModel) -> None:
    """Refuse a base some of whose weights aren't in memory. Raises E-BASE."""
    absent = next((name for name, weight in hf.named_parameters() if weight.is_meta), None)
    if absent is not None:
        what = f"the weight {absent!r} of the base is offloaded, to the disk or to another device's memory."
        hint = (
            "Load the base whole, with load_base: in bfloat16 it takes half, spread over devices (device_map) a part."
        )
        raise ModelError("E-BASE", what, hint)


def _is_plain(tensor: Any) -> bool:
    return type(tensor) in (Tensor, nn.Parameter)


def _beginnings(weights: Sequence[Tensor]) -> list[Tensor]:
    return [*weights[:-1], weights[-1][:_ROWS]]


def _stored(layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """List the plain tensors that a layer keeps, whatever its class or theirs."""
    for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
        yield from _flat(name, tensor)


def _flat(name: str, tensor: Any) -> Iterator[tuple[str, Tensor]]:
    if not hasattr(tensor, "__tensor_flatten__"):
        yield name, tensor
        return
    for part in tensor.__tensor_flatten__()[0]:
        yield from _flat(f"{name}.{part}", getattr(tensor, part))


def tensor_facts(tensors: Mapping[str, Tensor]) -> list[Any]:
    """Give names, forms and a hash of the numbers of some tensors, in whatever order they come."""
    named = sorted(tensors.items())
    form = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in named]
    return [form, hash_tensors(tensor for _, tensor in named)]


def hash_tensors(tensors: Iterable[Tensor]) -> str:
    """Hash the bytes of tensors, one after the other: sha256 in hex."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
