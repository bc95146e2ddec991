"""What an answer says of its routing: each expert's share of it, and who spoke at each token and site."""

from typing import Any

from torch import Tensor

from lorary.model.attached.spoken import Spoken
from lorary.model.attached.told_weights import DIGITS, ToldWeights


class Heard:
    """Who spoke in one answer, token by token. room: how many weights are kept apart; None: only shares are wanted."""

    def __init__(self, room: int | None) -> None:
        self._told = ToldWeights(room) if room is not None else None
        self._sum: Tensor | None = None
        self._sites: tuple[str, ...] = ()
        self._names: tuple[str, ...] = ()
        self._n_tokens = 0
        self._numbers: list[int] = []

    def hear(self, number: int, spoken: Spoken) -> None:
        """Take in who spoke when a token was chosen."""
        self._sites, self._names = spoken.sites, spoken.names
        shares = spoken.weights.double().mean(0)
        self._sum = shares if self._sum is None else self._sum + shares
        self._n_tokens += 1
        if self._told is not None and self._told.add(spoken.weights, spoken.evidence):
            self._numbers.append(number)

    def body(self, tokenizer: Any) -> dict[str, Any]:
        """Say it: `routing`, the shares of those who spoke, largest first; `trace` if more was to be kept."""
        shares = [] if self._sum is None else (self._sum / self._n_tokens).tolist()
        pairs = sorted(zip(self._names, shares, strict=False), key=lambda pair: -pair[1])
        body: dict[str, Any] = {"routing": {name: round(share, DIGITS) for name, share in pairs if share}}
        if self._told is not None:
            body["trace"] = {
                "experts": self._names,
                "sites": self._sites,
                "tokens": [tokenizer.decode([number]) for number in self._numbers],
                **self._told.to_json(),
                "left_out": self._n_tokens - len(self._numbers),
            }
        return body
