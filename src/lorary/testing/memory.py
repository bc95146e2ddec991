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
        given = [t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        found = func(*args, **(kwargs or {}))
        for storage in {t.untyped_storage() for t in tree_leaves(found) if isinstance(t, torch.Tensor)}:
            if storage.data_ptr() not in given:
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._free, storage.nbytes())
        return found

    def _free(self, n_bytes: int) -> None:
        self.now -= n_bytes


def peak_mib(run: Callable[[], Any]) -> float:
    """Run something once; give the most memory that its tensors took at one time, in MiB."""
    with AllocatedBytes() as counted:
        run()
    return counted.most / 2**20
