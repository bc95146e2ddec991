"""What an answer says of its routing: each expert's share of it, and who spoke at each token and site."""

from typing import Any

from torch import Tensor

from lorary.model.attached.spoken import Spoken

MOST_WEIGHTS = 200_000
"""Weights that one request is told in full, whatever the number of its answers."""
_MOST_EXPERTS = 8
_DIGITS = 6


class Heard:
    """Who spoke in one answer, token by token. room: how many weights are kept apart; None: only shares are wanted."""

    def __init__(self, room: int | None) -> None:
        self._room, self._in_full = room or 0, room is not None
        self._is_keeping = self._in_full
        self._sum: Tensor | None = None
        self._sites: tuple[str, ...] = ()
        self._names: tuple[str, ...] = ()
        self._n_tokens = 0
        self._numbers: list[int] = []
        self._weights: list[list[list[tuple[int, float]]]] = []

    def hear(self, number: int, spoken: Spoken) -> None:
        """Take in who spoke when a token was chosen."""
        self._sites, self._names = spoken.sites, spoken.names
        shares = spoken.weights.double().mean(0)
        self._sum = shares if self._sum is None else self._sum + shares
        self._n_tokens += 1
        if self._is_keeping:
            self._keep(number, spoken.weights)

    def _keep(self, number: int, weights: Tensor) -> None:
        experts = weights.abs().topk(min(_MOST_EXPERTS, weights.shape[1])).indices
        values = weights.gather(1, experts)
        told = [
            [(i, round(value, _DIGITS)) for i, value in zip(*pair, strict=True) if value]
            for pair in zip(experts.tolist(), values.tolist(), strict=True)
        ]
        self._room -= sum(map(len, told))
        if self._room < 0:
            self._is_keeping = False  # so that what is told is the answer's beginning, without gaps
            return
        self._numbers.append(number)
        self._weights.append(told)

    def body(self, tokenizer: Any) -> dict[str, Any]:
        """Say it: `routing`, the shares of those who spoke, largest first; `trace` if more was to be kept."""
        shares = [] if self._sum is None else (self._sum / self._n_tokens).tolist()
        pairs = sorted(zip(self._names, shares, strict=False), key=lambda pair: -pair[1])
        body: dict[str, Any] = {"routing": {name: round(share, _DIGITS) for name, share in pairs if share}}
        if self._in_full:
            body["trace"] = {
                "experts": self._names,
                "sites": self._sites,
                "tokens": [tokenizer.decode([number]) for number in self._numbers],
                "weights": self._weights,
                "left_out": self._n_tokens - len(self._weights),
            }
        return body
