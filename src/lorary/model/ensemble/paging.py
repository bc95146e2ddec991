"""Experts that stay on disk until they are used: prototypes resident, weights fetched under a budget of bytes.

The unit is one expert at one site: gates choose anew at every site, so whole experts would be fetched for one layer's
sake (measured: benchmarks/paging.py). The least recently used goes first. Weights are read through a memory map,
checked, and copied out in the base's dtype to its device.

A call packs the chosen experts of a site into a small bank and mixes that. It reads which were chosen, so it waits for
the device once a site. Answers don't depend on budget or history, to the bit, and equal those of resident experts up to
the order of additions; where a call uses all experts of a site, to the bit. What one call needs at one site is held
beside the budget while it runs.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors import safe_open
from torch import Tensor

from lorary.adapters.contract import Bank, Mix, Site, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.disk.reading import signature
from lorary.errors import LibraryError, OptionError, quote
from lorary.formats.peft import require_numbers
from lorary.formats.slices import own_part
from lorary.library.adapter.expert import Expert

_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]i?)?B?")
_UNITS = {"": 1} | {f"{letter}i": 1024 ** (i + 1) for i, letter in enumerate("KMGT")}
_UNITS |= {letter: 1000 ** (i + 1) for i, letter in enumerate("KMGT")}


def parse_size(text: str | int) -> int:
    """Read "2GiB", "500 MB" or a number of bytes. Raises E-OPTION."""
    match = _SIZE.fullmatch(str(text).strip())
    size = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if size < 1:
        raise OptionError("E-OPTION", f"memory={text!r} is no size.", "Write 2GiB, 500MB or a number of bytes.")
    return size


@dataclass(frozen=True)
class PagingFacts:
    """Counts of paging: fetches that were answered from memory or from disk, and the bytes held."""

    hits: int
    misses: int
    size_bytes: int
    budget_bytes: int


class Pager:
    """The weights in memory: (expert, site) -> weights, least recently used first. Shared by twins."""

    def __init__(self, budget_bytes: int, dtype: torch.dtype, device: torch.device) -> None:
        self._budget, self._dtype, self._device = budget_bytes, dtype, device
        self._held: OrderedDict[tuple[PagedExpert, str], Weights] = OrderedDict()
        self._size = self._hits = self._misses = 0
        self._lock = threading.Lock()

    @property
    def facts(self) -> PagingFacts:
        """The counts so far."""
        return PagingFacts(self._hits, self._misses, self._size, self._budget)

    def get(self, expert: "PagedExpert", site: str) -> Weights:
        """Give an expert's weights at one site, in the base's dtype on its device."""
        key = (expert, site)
        with self._lock:
            if key in self._held:
                self._hits += 1
                self._held.move_to_end(key)
                return self._held[key]
            self._misses += 1
        read = expert[site]
        a, b = (t.to(self._device, self._dtype, copy=True) for t in (read.a, read.b))
        weights = Weights(a, b, read.scale)
        with self._lock:
            if key not in self._held:
                self._size += _size_of(weights)
            self._held[key] = weights
            while self._size > self._budget:
                self._size -= _size_of(self._held.popitem(last=False)[1])
        return weights


def _size_of(weights: Weights) -> int:
    return weights.a.nbytes + weights.b.nbytes


class PagedExpert(Mapping[str, Weights]):
    """One expert on disk: site -> its weights, read whenever they are asked for, in the file's own dtype."""

    def __init__(self, expert: Expert) -> None:
        """Open it. Raises E-FILE if its file is no longer that of this expert."""
        self._expert = expert
        self._seen = self._signature()
        expert.confirm(recorded=True)

    def __getitem__(self, site: str) -> Weights:
        """Read the weights at one site. Raises E-FILE, E-NONFINITE."""
        expert = self._expert
        factors = expert.sites[site]
        keys = (factors.a, factors.b)
        if (found := self._signature()) != self._seen:
            self._confirm()
            self._seen = found
        try:
            with safe_open(expert.weights_path, framework="pt") as file:
                tensors: list[Tensor] = [file.get_tensor(key) for key in keys]
        except FileNotFoundError:
            raise self._changed() from None
        for key, tensor in zip(keys, tensors, strict=True):
            require_numbers(expert.name, key, tensor)
        a, b = own_part(factors, tensors[0], tensors[1])
        if factors.of:  # not to keep its neighbours in memory
            a, b = a.clone(), b.clone()
        return Weights(a, b, expert.scales[site])

    def __iter__(self) -> Iterator[str]:
        return iter(self._expert.sites)

    def __contains__(self, site: object) -> bool:
        return site in self._expert.sites

    def __len__(self) -> int:
        return len(self._expert.sites)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def _signature(self) -> tuple[int, ...]:
        try:
            return signature(self._expert.weights_path)
        except FileNotFoundError:
            raise self._changed() from None

    def _confirm(self) -> None:
        """Read a file again that was touched: a backup's hard link or a chmod leaves the bytes as they were.

        The times alone can't tell: a write whose time was set back shows in ctime only, as a hard link does.
        """
        try:
            self._expert.confirm()
        except LibraryError:
            raise self._changed() from None

    def _changed(self) -> LibraryError:
        what = f"expert {quote(self._expert.name)}: its file was changed or removed while it is fetched on demand."
        return LibraryError("E-FILE", what, "Use model.replace or model.remove, then the library's.")


class PagedBank(Bank):
    """All experts at one site, of which only those in use are in memory. None: the expert doesn't adapt this site."""

    def __init__(self, experts: Sequence[Mapping[str, Weights] | None], site: Site, pager: Pager) -> None:
        super().__init__()
        self.n_experts = len(experts)
        self.site, self.pager = site, pager
        self._experts = [e if isinstance(e, PagedExpert) and site.name in e else None for e in experts]

    def splice(self, index: int, leaving: int, coming: Sequence[Mapping[str, Weights]]) -> "PagedBank":
        """Make a bank with others in the place of the `leaving` experts from the `index`-th on."""
        experts = [*self._experts[:index], *coming, *self._experts[index + leaving :]]
        return PagedBank(experts, self.site, self.pager)

    def cast(self, dtype: torch.dtype) -> "PagedBank":
        """Do nothing: the pager knows the dtype."""
        return self

    def forward(self, x: Tensor, y: Tensor, weights: Tensor, experts: Tensor | None, mix: Mix) -> Tensor:
        """Fetch the experts with a weight, then mix them."""
        if experts is None:
            used = weights.flatten(0, -2).ne(0).any(0).nonzero()[:, 0]  # (U,)
            chosen, weights = None, weights[..., used] if len(used) else weights
        else:
            used, local = torch.unique(experts, return_inverse=True)  # sorted
            chosen = local.view_as(experts)
        found = [self._fetch(index) for index in used.tolist()]
        if not any(w is not None for w in found):
            return y
        bank = LowRankBank(found, self.site).to(y.device)
        mixed: Tensor = bank(x, y, weights, chosen, mix)
        return mixed

    def _fetch(self, index: int) -> Weights | None:
        expert = self._experts[index]
        return None if expert is None else self.pager.get(expert, self.site.name)
