"""How much memory a piece of code needs at most, counted from what its operations allocate and free."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class AllocatedBytes(TorchDispatchMode):
    """Follows the storages that operations make while it is entered; `most` is the largest sum that lived at once.

    What an operation needs inside itself is not seen, nor tensors that were there before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count its results, unless they share memory with what it was given."""
        given = [storage.data_ptr() for storage in _storages((args, kwargs))]
        found = func(*args, **(kwargs or {}))
        for storage in _storages(found):
            if storage.data_ptr() not in given:
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._free, storage.nbytes())
        return found

    def _free(self, n_bytes: int) -> None:
        self.now -= n_bytes


def _storages(tree: Any) -> set[torch.UntypedStorage]:
    tensors = [t for t in tree_leaves(tree) if isinstance(t, torch.Tensor)]
    return {part.untyped_storage() for t in tensors for part in _parts(t)}


def _parts(t: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Give the tensors that a sparse one is made of: it has no storage of its own."""
    return (t.crow_indices(), t.col_indices(), t.values()) if t.layout == torch.sparse_csr else (t,)


def peak_mib(run: Callable[[], object]) -> float:
    """Run something once; give the most memory that its tensors took at one time, in MiB."""
    with AllocatedBytes() as counted:
        run()
    return counted.most / 2**20
