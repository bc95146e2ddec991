"""PEFT adapter directory <-> weights per site; the scale is resolved here, once."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lorary.adapters.contract import Weights
from lorary.adapters.lora import LoRA
from lorary.errors import AdapterError, LibraryError
from lorary.formats.slices import Joined, join_slices, joined, own_part
from lorary.formats.tensor_file import write_tensors
from lorary.library.adapter.expert import Expert
from lorary.library.adapter.header import ITEM_BYTES, Header, TensorInfo
from lorary.library.adapter.numbers import MAX_ABS, in_words
from lorary.library.adapter.site_keys import PREFIX
from lorary.library.adapter.targets import keys_of, parse_slice
from lorary.library.base_names import shared_name
from lorary.library.layout import CONFIG, WEIGHTS

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_weights(expert: Expert) -> dict[str, Weights]:
    """Read one expert: site name -> weights, by memory map, in the file's own dtype.

    Raises E-NONFINITE for a NaN, an infinity or an absurd number, with its tensor and place; E-FILE for a file that is
    not what expert.json promised, or no longer what it was when its header was read.
    """
    tensors = _map_tensors(expert)
    weights: dict[str, Weights] = {}
    for site, factors in expert.sites.items():
        a, b = own_part(factors, tensors[factors.a], tensors[factors.b])
        weights[site] = Weights(a, b, expert.scales[site])
    return weights


def _map_tensors(expert: Expert) -> dict[str, Tensor]:
    """Map the file once, privately, and look at each tensor where it lies."""
    data = _map_file(expert)
    return {key: _view(data, info) for key, info in expert.header.items()}


def _map_file(expert: Expert, *, recorded: bool = False) -> Tensor:
    """Map a file's bytes, privately, and check all numbers in them. Raises E-FILE, E-NONFINITE.

    recorded: as `Expert.confirm` has it.
    """
    path = expert.weights_path
    size = max(t.start + _n_bytes(t) for t in expert.header.values())
    try:
        if path.stat().st_size != size:
            raise _changed(expert)
        data = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    except (FileNotFoundError, RuntimeError):
        if path.exists():
            raise
        raise _changed(expert) from None
    expert.confirm(recorded=recorded)  # after the mapping: what is put in the file's place from now on isn't read
    if not _are_sane(data, expert.header):
        for key, info in expert.header.items():
            require_numbers(expert.name, key, _view(data, info))
    return data


def _changed(expert: Expert) -> LibraryError:
    what = f"expert {expert.name!r}: {expert.weights_path.name} was changed since it was opened."
    return LibraryError("E-FILE", what, "Retry.")


def _n_bytes(info: TensorInfo) -> int:
    return math.prod(info.shape) * ITEM_BYTES[info.dtype]


def _view(data: Tensor, info: TensorInfo) -> Tensor:
    piece = data[info.start : info.start + _n_bytes(info)]
    if info.start % ITEM_BYTES[info.dtype]:
        piece = piece.clone()  # some writers don't align
    return piece.view(_DTYPES[info.dtype]).view(info.shape)


def _span(header: Header) -> tuple[int, torch.dtype] | None:
    """Tell where a file's numbers start and their dtype; None where they can't be seen as one vector."""
    start, dtypes = min(t.start for t in header.values()), {t.dtype for t in header.values()}
    if len(dtypes) > 1 or start % ITEM_BYTES[min(dtypes)]:
        return None
    return start, _DTYPES[min(dtypes)]


def _are_sane(data: Tensor, header: Header) -> bool:
    """Check all numbers of a file in one pass; False also where tensors of several dtypes forbid it."""
    if (span := _span(header)) is None:
        return False
    start, dtype = span
    least, most = data[start:].view(dtype).aminmax()
    return bool((least >= -MAX_ABS) & (most <= MAX_ABS))  # a NaN compares false


def read_experts(library: Mapping[str, Expert]) -> dict[str, dict[str, Weights]]:
    """Read all experts of a library, in order of their names."""
    return {name: read_weights(library[name]) for name in sorted(library)}


def open_experts(library: Mapping[str, Expert]) -> dict[str, Mapping[str, Weights]]:
    """Open all experts of a library without reading them: each site's weights are mapped anew when they are asked for.

    For passes over libraries of thousands: no expert is held in memory. Raises E-NONFINITE then, not now.
    """
    return {name: _OpenExpert(library[name]) for name in sorted(library)}


def as_vectors(experts: Sequence[Mapping[str, Weights]]) -> list[Tensor] | None:
    """Map the files of opened experts as vectors of all their numbers, (D,) each, whose entries stand for the same.

    None unless all files are laid out alike, of one dtype and of factors alone. Raises E-FILE, E-NONFINITE.
    """
    opened = [expert.expert for expert in experts if isinstance(expert, _OpenExpert)]
    if len(opened) < len(experts) or not opened or any(one.header != opened[0].header for one in opened):
        return None
    header, factors = opened[0].header, {key for f in opened[0].sites.values() for key in (f.a, f.b)}
    if factors != header.keys() or (span := _span(header)) is None:
        return None
    start, dtype = span
    return [_map_file(one, recorded=True)[start:].view(dtype) for one in opened]


class _OpenExpert(Mapping[str, Weights]):
    """One expert's file, mapped; nothing is kept of what was asked for."""

    def __init__(self, expert: Expert) -> None:
        self.expert = expert
        try:
            self._file: Any = safe_open(expert.weights_path, framework="pt")
        except FileNotFoundError:
            raise _changed(expert) from None
        expert.confirm(recorded=True)

    def __getitem__(self, site: str) -> Weights:
        factors = self.expert.sites[site]
        a, b = own_part(factors, self._read(factors.a), self._read(factors.b))
        return Weights(a, b, self.expert.scales[site])

    def _read(self, key: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(key)
        require_numbers(self.expert.name, key, tensor)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.expert.sites)

    def __contains__(self, site: object) -> bool:
        return site in self.expert.sites

    def __len__(self) -> int:
        return len(self.expert.sites)


def require_numbers(name: str, key: str, tensor: Tensor) -> None:
    """Raise E-NONFINITE for a NaN, an infinity or an absurd number in an expert's tensor, with its place."""
    low, high = torch.aminmax(tensor)  # one pass; a NaN comes out as NaN
    if not (low >= -MAX_ABS and high <= MAX_ABS):
        bad = ~(tensor.abs() <= MAX_ABS)
        index = tuple(int(i) for i in bad.nonzero()[0])
        message, hint = in_words(key, int(bad.sum()), index)
        raise AdapterError("E-NONFINITE", f"expert {name!r}: {message}", hint)


def write_weights(directory: Path, kind: LoRA, weights: Mapping[str, Weights], *, base_name: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors, float32, as PEFT has them.

    `kind` says rank and scale; sites that have others are named in rank_pattern and alpha_pattern. A `base_name` that
    is a path is written as `shared_name` says.
    """
    layers = {site: w for site, w in weights.items() if parse_slice(site) is None}
    slices = join_slices({site: w for site, w in weights.items() if site not in layers}, kind)
    whole: dict[str, Weights | Joined] = {**layers, **slices}
    tensors: dict[str, Tensor] = {}
    keys = {**{site: f"{PREFIX}{site}" for site in layers}, **keys_of(slices)}
    for site in sorted(whole):
        tensors[f"{keys[site]}.lora_A.weight"] = whole[site].a.detach().float().cpu().contiguous()
        tensors[f"{keys[site]}.lora_B.weight"] = whole[site].b.detach().float().cpu().contiguous()
    write_tensors(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": shared_name(base_name),
        **kind.peft_config(sorted(layers)),
        **({"target_parameters": sorted(slices)} if slices else {}),
        **_patterns(kind, whole),
    }
    (directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def write_factors(directory: Path, expert: Expert, weights: Mapping[str, Weights]) -> None:
    """Write an expert's adapter_model.safetensors with other values at its sites, in their dtype. Raises E-NONFINITE.

    Its adapter_config.json stays true: ranks and scales are the expert's.
    """
    parts: dict[tuple[str, str], list[Weights]] = {}
    for site, factors in sorted(expert.sites.items(), key=lambda pair: pair[1].number):
        parts.setdefault((factors.a, factors.b), []).append(weights[site])
    tensors: dict[str, Tensor] = {}
    for keys, several in parts.items():
        for key, tensor in zip(keys, joined(several), strict=True):
            require_numbers(expert.name, key, tensor)
            tensors[key] = tensor.detach().cpu().contiguous()
    write_tensors(tensors, directory / WEIGHTS, {"format": "pt"})


def _scale(weights: Weights | Joined, kind: LoRA) -> float:
    return weights.scale if isinstance(weights, Joined) else kind.scale  # of a layer's, rank says it all


def _patterns(kind: LoRA, weights: Mapping[str, Weights | Joined]) -> dict[str, object]:
    other = {site: w for site, w in sorted(weights.items()) if (w.rank, _scale(w, kind)) != (kind.rank, kind.scale)}
    if not other:
        return {}
    power = 0.5 if kind.rslora else 1.0
    # Whole paths; a dot would match any letter.
    named = {"^" + site.replace(".", "\\.") + "$": w for site, w in other.items()}
    return {
        "rank_pattern": {key: w.rank for key, w in named.items()},
        "alpha_pattern": {key: w.scale * w.rank**power for key, w in named.items()},
    }
