"""A cache layer with room for tokens to come: appending one copies that one, not all that were there before.

transformers' own layer makes new tensors of all keys and values with each token, which takes longer than the attention.
"""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer

_LEAST = 32
_SHARE = 8  # of the tokens so far, what is kept free: so much memory more, and so seldom a copy of all


class RoomyLayer(DynamicLayer):
    """Keys and values (B, H, T, d) as views of larger tensors, whose columns behind T are free.

    Whoever puts other tensors in their place, as when rows leave, takes the room away; the next token makes it anew.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._rooms: list[Tensor] = []

    @classmethod
    def of(cls, layer: DynamicLayer) -> "RoomyLayer":
        """Make one that goes on where another layer is."""
        made = cls()
        vars(made).update(vars(layer))
        return made

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Put tokens (B, H, t, d) behind those that are there; give all of them."""
        if self.get_seq_length() == 0:
            return super().update(key_states, value_states)
        assert self.keys is not None and self.values is not None
        before, added = (self.keys, self.values), (key_states, value_states)
        n, n_added = self.keys.shape[-2], key_states.shape[-2]
        if not self._has_room(before, n + n_added):
            free = max(_LEAST, (n + n_added) // _SHARE)
            self._rooms = [_widened(states, n_added + free) for states in before]
        for room, states in zip(self._rooms, added, strict=True):
            room[..., n : n + n_added, :] = states
        self.keys, self.values = (room[..., : n + n_added, :] for room in self._rooms)
        return self.keys, self.values

    def _has_room(self, before: tuple[Tensor, Tensor], width: int) -> bool:
        """Tell whether keys and values, as they are, still begin where the rooms do, and so many columns fit in."""
        return len(self._rooms) == 2 and all(
            states.data_ptr() == room.data_ptr()
            and states.stride() == room.stride()
            and states.shape[:2] == room.shape[:2]
            and width <= room.shape[-2]
            for states, room in zip(before, self._rooms, strict=True)
        )


def _widened(states: Tensor, n_free: int) -> Tensor:
    """Copy states (B, H, T, d) into the beginning of a tensor with so many columns more."""
    *rows, n, size = states.shape
    room = states.new_empty(*rows, n + n_free, size)
    room[..., :n, :] = states
    return room


def give_room(cache: Any) -> None:
    """Make the layers of a cache such that tokens are appended without a copy, those that hold all tokens so far."""
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[i] = RoomyLayer.of(layer)


def keeps_all(layer: Any) -> bool:
    """Tell whether a layer holds the keys and values of all tokens so far, as transformers' or with room."""
    return type(layer) in (DynamicLayer, RoomyLayer)
