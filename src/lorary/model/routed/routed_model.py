"""A base with a library routed into it: forward, generate, explain, detach."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import torch
from torch import Tensor

from lorary.adapters.contract import Mix
from lorary.errors import LibraryError, RoutingError
from lorary.evaluation.contract import LogLikelihood, Wanted
from lorary.library.adapter.expert import Expert
from lorary.library.library import Library
from lorary.model.attached.attachment import Attachment
from lorary.model.attached.slot import Slot
from lorary.model.base.base_model import BaseModel
from lorary.model.decoding.answer import Answering, answer
from lorary.model.decoding.likelihood import log_likelihood
from lorary.model.decoding.sequences import Caller
from lorary.model.ensemble.ensemble import Ensemble, Parts, check_mix
from lorary.model.ensemble.paging import PagingFacts
from lorary.model.routed.edit import add_expert, change_router, remove_expert, replace_expert, share_experts
from lorary.model.routed.explain import explain_answer
from lorary.model.routed.prompts import prompts_of
from lorary.model.routed.shares import shares_of
from lorary.model.routed.trace import Trace, average_shares
from lorary.model.routed.twin import twin_base, twin_part
from lorary.model.saved.format import Keep
from lorary.model.saved.save import save
from lorary.model.text.tokens import require_ids
from lorary.options import require_each, to_spec
from lorary.routing.contract import Context, Router, find_router
from lorary.tasks.example import Example
from lorary.tasks.task import Tasks


class RoutedModel:
    """A base that answers with the experts that its router chooses. `detach` restores the base bit for bit.

    One thread at a time; `twin` makes a second model over the same memory. `add`, `remove`, `replace`, `set_router` and
    `set_mix` edit it in place, to the bit as if built anew. An edit that fails changes nothing; in a call, E-BUSY.
    """

    def __init__(self, base: BaseModel, attachment: Attachment, ensemble: Ensemble) -> None:
        self.base = base
        self._attachment = attachment
        self._taking = threading.Lock()  # twins may be made while another thread changes this model
        self._take(ensemble)

    def _take(self, ensemble: Ensemble) -> None:
        self._prompts = prompts_of(self.base, self._attachment, ensemble)
        self._ensemble = ensemble

    def __enter__(self) -> "RoutedModel":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.detach()

    def detach(self) -> None:
        """Put the base's own layers back; a second call does nothing. Raises E-BUSY during a call."""
        self._attachment.detach()

    @property
    def names(self) -> tuple[str, ...]:
        """The experts, sorted."""
        return self._ensemble.names

    @property
    def router(self) -> Router:
        """What chooses among them."""
        return self._ensemble.router

    @property
    def mix(self) -> Mix:
        """How the chosen experts are combined."""
        return self._ensemble.mix

    @property
    def paging(self) -> PagingFacts | None:
        """Hits and misses of fetching on demand; None if all weights are in memory."""
        return self._ensemble.pager.facts if self._ensemble.pager is not None else None

    @property
    def identity(self) -> Mapping[str, Any]:
        """What this model is, for the header of a run."""
        ensemble = self._ensemble
        routing = {"router": to_spec(self.router), "state": ensemble.knowledge, "mix": self.mix}
        return {**self.base.identity, "library": ensemble.hash, **routing}

    # ---- changes --------------------------------------------------------------------------------

    def add(self, expert: Expert | str) -> None:
        """Add one more expert: a library's, or the name of one that its library has by now.

        Costs that expert: routers whose state is per expert look at it alone. Raises E-EXISTS, E-BASE, E-TARGET,
        E-SHAPE, E-RANK, E-NONFINITE, E-PROBE, E-BUSY.
        """
        self._change(add_expert, self._find(expert))

    def remove(self, name: str) -> None:
        """Take an expert out. Raises E-NAME, E-BUSY, and E-EMPTY for the last one."""
        self._change(remove_expert, name)

    def replace(self, expert: Expert | str) -> None:
        """Put an expert, as `add` takes it, in the place of the one of its name. Raises E-NAME, and as `add`."""
        self._change(replace_expert, self._find(expert))

    def set_router(self, router: Router | str, *, tasks: Tasks | None = None) -> None:
        """Change the router; `tasks`: for routers that need examples. Raises E-NAME, E-OPTION, E-PROBE, E-BUSY."""
        router = find_router(router)
        self._change(change_router, router, tasks, router=router)

    def set_mix(self, mix: Mix) -> None:
        """Change how the chosen experts are combined. Raises E-RANK, E-OPTION, E-BUSY."""
        with self._attachment.slot.alone():
            self._attachment.require_attached()
            check_mix(self._ensemble.members, mix)
            self._ensemble, self._attachment.slot.mix = replace(self._ensemble, mix=mix), mix

    def twin(self) -> "RoutedModel":
        """Make a model for another thread: modules of its own over this one's memory, base and experts alike.

        Later edits of one don't affect the other. May be called while this one is busy.
        """
        with self._taking:
            twin, parts, ensemble = twin_base(self.base, self._attachment), self._attachment.parts, self._ensemble
            era = self._attachment.slot.era
        parts = {site: (twin_part(bank), twin_part(gate)) for site, (bank, gate) in parts.items()}
        attachment = Attachment(twin.hf, parts, Slot(ensemble.mix))
        attachment.slot.era = era  # one can go on with the other's KV cache
        return RoutedModel(twin, attachment, ensemble)

    def share_memory(self, other: "RoutedModel") -> None:
        """Share the memory of another model of the same experts, as a twin does. Raises E-OPTION, E-BUSY."""
        self._change(share_experts, other._ensemble, other._attachment.parts)

    def save(self, directory: Path | str, *, experts: Keep = "copy") -> Path:
        """Write this model to a new directory, whole or not at all; `lorary.load` gives it back, to the bit.

        experts: "copy" puts them in, "refer" notes where they are and what their hashes were.
        Experts that were trained through this model are written as they are now.
        Raises E-EXISTS, E-PATH, E-FILE for an expert that has changed on disk, E-OPTION for referring to one that was
        trained, E-STATE for trained numbers of a gate that no state holds, E-NONFINITE, E-DISK, E-PERM.
        """
        return save(self.base, self._ensemble, self._attachment.parts, directory, experts)

    @property
    def experts(self) -> Mapping[str, Expert]:
        """The experts by name, as their libraries have them."""
        return dict(self._ensemble.members)

    def _find(self, expert: Expert | str) -> Expert:
        return Library.open(self._ensemble.library.path)[expert] if isinstance(expert, str) else expert

    def _change(self, edit: Callable[..., tuple[Ensemble, Parts]], *details: Any, router: Router | None = None) -> None:
        with self._attachment.slot.alone(), torch.inference_mode(False):
            runs = bool({"base", "examples"} & (router or self.router).needs)  # to read data, without experts
            base = twin_base(self.base, self._attachment) if runs else self.base
            ensemble, parts = edit(base, self._ensemble, self._attachment.parts, *details)
            with self._taking:
                self._attachment.swap(parts)
                self._take(ensemble)

    # ---- answers --------------------------------------------------------------------------------

    def __call__(self, input_ids: Tensor, *, tasks: Sequence[str] | None = None, **options: Any) -> Any:
        """Run the model on ids (B, T) as transformers does; `tasks` names each row's task for the oracle."""
        with self._attachment.turn(self._context_of_ids(input_ids, tasks, options)):
            return self.base.hf(input_ids=input_ids, **options)

    def generate(self, input_ids: Tensor, *, tasks: Sequence[str] | None = None, **options: object) -> Tensor:
        """Generate after ids (B, T) as transformers does: KV cache, sampling, beams, all its options."""
        with self._attachment.turn(self._context_of_ids(input_ids, tasks, options)):
            ids: Tensor = self.base.hf.generate(input_ids=input_ids, **options)
        return ids

    def log_likelihood(self, examples: Sequence[Example], *, open_end: bool = False) -> list[LogLikelihood]:
        """Score each example's completion in nats, its end included unless open; routers see the prompt's text only."""
        return log_likelihood(self.base, examples, self.caller, open_end=open_end)

    def generate_text(self, examples: Sequence[Example], *, max_new_tokens: int, **how: Unpack[Wanted]) -> list[str]:
        """Answer each example's prompt greedily, or as `how` says, until a stop token of the base."""
        return answer(self.base, examples, self.caller, Answering(max_new_tokens, **how))

    def explain(self, prompt: str | Example, *, max_new_tokens: int = 32, answer: Sequence[int] | None = None) -> Trace:
        """Answer a prompt, or take the tokens `answer`, and record which experts each token used at each site."""
        return self._trace(prompt, max_new_tokens, answer)

    def choices(self, prompts: Sequence[str | Example]) -> dict[str, dict[str, float]]:
        """Average the weights over all tokens of some prompts: site -> expert -> share. Raises E-EMPTY."""
        require_each("prompts", prompts, (str, Example), "texts or examples", "Write [prompt] for a single one.")
        if not prompts:
            raise LibraryError("E-EMPTY", "there are no prompts to average over.", "Give some.")
        return average_shares([self._trace(prompt, 0) for prompt in prompts])

    def shares(self) -> dict[str, float] | None:
        """Measure each expert's share of a plain text about nothing in particular, largest first.

        None where the router doesn't score hidden states. `route` warns of one that takes more than half (W-HIJACK).
        """
        return shares_of(self.base, self._attachment, self._ensemble)

    def _trace(self, prompt: str | Example, max_new_tokens: int, answer: Sequence[int] | None = None) -> Trace:
        how: dict[str, Any] = {"names": self.names, "max_new_tokens": max_new_tokens, "answer": answer}
        return explain_answer(self.base, self._attachment.slot, self.caller.about, prompt, **how)

    @property
    def caller(self) -> Caller:
        """How it is called for examples."""
        return Caller(self.base.hf, self._context_of, self._attachment.turn, self._attachment.slot, self.names)

    def _context_of(self, examples: Sequence[Example]) -> Context:
        experts = self._experts([e.task for e in examples], len(examples))
        return Context(experts, self._prompts.of_examples(examples) if self._prompts else None)

    def _context_of_ids(self, ids: Tensor, tasks: Sequence[str] | None, options: Mapping[str, Any]) -> Context:
        require_ids(ids)
        features = self._prompts.of_ids(ids, options.get("attention_mask")) if self._prompts else None
        return Context(self._experts(tasks, len(ids)), features)

    def _experts(self, tasks: Sequence[str] | None, n_rows: int) -> Tensor | None:
        if "task" not in self.router.needs or tasks is None:
            return None
        require_each("tasks", tasks, str, "task names")
        if len(tasks) != n_rows:
            raise RoutingError("E-ROWS", f"{len(tasks)} tasks for {n_rows} rows.", "Name the task of each row.")
        return torch.tensor(self._ensemble.numbers_of(tasks), device=self.base.device)
