"""How likely answers are: what rows have in common at their beginning, as a question's options do, is read once."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lorary.evaluation.contract import LogLikelihood
from lorary.model.decoding.prefixes import Branch, grow
from lorary.model.decoding.sequences import Caller, Rows
from lorary.model.text.batching import enough_tokens, halving, is_of_memory, tokens_at_once
from lorary.model.text.reader import Reader
from lorary.model.text.scoring import Judged, check_examples, judge, score_rows, sum_rows
from lorary.model.text.tokens import Encoded
from lorary.routing.contract import Context
from lorary.tasks.example import Example

_CACHED = 4
"""So many tokens that are read already, of which there are keys and values only, fill a new one's memory at most."""
_CALLS, _PADDED = 8, 8
"""A call costs what this part of enough tokens does; a smaller part of a batch than this one may be padding anyway."""


def log_likelihood(
    base: Reader, examples: Sequence[Example], caller: Caller, *, open_end: bool = False
) -> list[LogLikelihood]:
    """Compute log p(completion, end | prompt) in nats for each example, in float32, in the order given.

    open_end: log p(completion | prompt). Warns of prompts that are cut. Raises E-LENGTH, E-CHAT, E-MEMORY.
    """
    check_examples(examples)
    rows = base.encode(examples, open_end=open_end)
    found = judge_rows(base, rows, examples, caller)
    return [LogLikelihood(judged.nats, len(row.completion)) for judged, row in zip(found, rows, strict=True)]


def judge_rows(base: Reader, rows: Sequence[Encoded], examples: Sequence[Example], caller: Caller) -> list[Judged]:
    """Judge the completion of each row; `examples`: what the router is told of it. Raises E-MEMORY."""
    found: dict[int, Judged] = {}
    with torch.inference_mode():
        forest = _Forest(base, rows, caller)
        for roots in forest.plant(examples):
            found |= forest.read(roots)
    rest = [number for number in range(len(rows)) if number not in found]
    judged = score_rows(base, [rows[i] for i in rest], [examples[i] for i in rest], caller.about)
    found |= zip(rest, judged, strict=True)
    return [found[number] for number in range(len(rows))]


class _Place(NamedTuple):
    """A branch, and which of the rows that are read it continues."""

    branch: Branch
    row: int


class _Forest:
    """Rows that share their beginnings, read branch by branch."""

    def __init__(self, base: Reader, rows: Sequence[Encoded], caller: Caller) -> None:
        self._base, self._rows, self._caller = base, rows, caller
        self._most = base.batch_tokens or tokens_at_once(base)
        self._contexts = Context()
        self._context_of: dict[int, int] = {}

    def plant(self, examples: Sequence[Example]) -> list[list[Branch]]:
        """Find what rows share, in groups that memory holds; what the router is told must be the same for them."""
        n_tokens = sum(map(len, self._rows))
        roots = grow(self._rows, dict.fromkeys(range(len(self._rows))))
        if not roots or not n_tokens or not (longest := self._base.in_parts):
            return []
        shared = sorted(number for root in roots for number in set(root.rows))
        questions = {i: replace(examples[i], completion="", references=(), choices=(), extra={}) for i in shared}
        places = {question: place for place, question in enumerate(dict.fromkeys(questions.values()))}
        self._contexts = self._caller.prepare(list(places))
        self._context_of = {i: places[question] for i, question in questions.items()}
        told = _told(self._contexts, len(places))
        kinds = {i: told[place] for i, place in self._context_of.items() if len(self._rows[i]) <= longest}
        if len(set(told)) > 1 or len(kinds) < len(shared):
            roots = grow(self._rows, kinds)
        return [[place.branch for place in group] for group in self._held([_Place(root, 0) for root in roots], 0)]

    def read(self, roots: list[Branch]) -> dict[int, Judged]:
        """Judge the rows of some trees, save those of a tree that memory doesn't hold."""
        found: dict[int, Judged] = {}
        for _, parts in halving(list(range(len(roots))), lambda part: self._judge([roots[i] for i in part]), roots):
            for part in parts:
                found |= part
        return found

    def _judge(self, roots: Sequence[Branch]) -> list[dict[int, Judged]]:
        sums = torch.zeros(len(self._rows), 2, device=self._base.device)
        try:
            self._descend([_Place(root, 0) for root in roots], None, sums)
        except RuntimeError as error:
            if len(roots) > 1 or not is_of_memory(error):
                raise
            return [{}]  # its rows take less one by one
        judged = [Judged(-loss, not misses) for loss, misses in sums.tolist()]
        return [{number: judged[number] for number in root.rows} for root in roots]

    def _descend(self, places: Sequence[_Place], before: Rows | None, sums: Tensor) -> None:
        """Read branches behind the rows they continue, then theirs; add what they ask to sums (N, 2).

        What was read in several calls goes on together, since one large call is faster than several small ones.
        """
        for held in self._held(places, before.n_tokens if before else 0):
            joined: Rows | None = None
            following: list[_Place] = []
            for group in self._alike(held):
                rows = self._start(group, before)
                self._read([place.branch for place in group], rows, sums)
                n = joined.n_rows if joined else 0
                found = [_Place(inner, n + row) for row, place in enumerate(group) for inner in place.branch.branches]
                if not found:
                    continue
                following += found
                if joined is None:
                    joined = rows
                else:
                    joined.add(rows)
            if following:
                self._descend(following, joined, sums)

    def _start(self, group: Sequence[_Place], before: Rows | None) -> Rows:
        if before is not None:
            return before.fork([place.row for place in group])
        index = torch.tensor([self._context_of[place.branch.row] for place in group], device=self._base.device)
        return Rows(self._caller, self._contexts.select(index))

    def _read(self, branches: Sequence[Branch], rows: Rows, sums: Tensor) -> None:
        """Read a branch in each row, padded on the right, and judge what is asked there."""
        width = max(len(branch.tokens) for branch in branches)
        ids, head = torch.zeros(len(branches), width, dtype=torch.long), torch.zeros(len(branches), width)
        mask = torch.zeros_like(ids)
        for i, branch in enumerate(branches):
            n = len(branch.tokens)
            ids[i, :n], mask[i, :n] = torch.tensor(branch.tokens), 1
            head[i, [ask.column for ask in branch.asks]] = 1
        asks = [(i * width + ask.column, ask.row, ask.token) for i, b in enumerate(branches) for ask in b.asks]
        if not asks:
            head[0, 0] = 1  # a head that is given nothing at all is nobody's expectation
        device = self._base.device
        with self._base.head_at(head.bool().to(device)):
            logits = rows.read(ids.to(device), mask.to(device), every=True).squeeze(0)  # (n, V)
        if asks:
            columns, numbers, tokens = torch.tensor(asks).unbind(1)
            if len(asks) > len(logits):  # several rows go on from the same column
                logits = logits[(head.flatten().cumsum(0)[columns] - 1).long().to(device)]
            sums += sum_rows(judge(logits, tokens.to(device)), numbers.to(device), len(sums))

    def _held(self, places: Sequence[_Place], n_before: int) -> Iterator[list[_Place]]:
        """Group branches of similar length as memory holds them; tokens that are read already fill less of it."""
        group: list[_Place] = []
        for place in sorted(places, key=lambda place: len(place.branch.tokens)):
            if group and (len(group) + 1) * (len(place.branch.tokens) + n_before / _CACHED) > self._most:
                yield group
                group = []
            group.append(place)
        if group:
            yield group

    def _alike(self, places: Sequence[_Place]) -> Iterator[list[_Place]]:
        """Part branches, the shortest first, so that none has more padding than one more call is worth."""
        call = enough_tokens(self._base.device) // _CALLS
        group: list[_Place] = []
        n_real = 0
        for place in places:
            width = len(place.branch.tokens)
            padding = len(group) * width - n_real
            if padding > call and _PADDED * padding > (len(group) + 1) * width:
                yield group
                group, n_real = [], 0
            group.append(place)
            n_real += width
        yield group


def _told(contexts: Context, n: int) -> list[Hashable]:
    """Give what the router is told of each of n questions, to be compared."""
    parts = [part.tolist() for part in (contexts.experts, contexts.features) if part is not None]
    return [tuple(str(part[i]) for part in parts) for i in range(n)]
