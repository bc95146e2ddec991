"""Hidden states of an expert on examples; text embeddings."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from lorary.adapters.contract import Experts, Site
from lorary.errors import RoutingError
from lorary.model.attached.slot import Slot
from lorary.model.base.base_model import BaseModel
from lorary.model.base.calls import require_whole
from lorary.model.base.config import NO_CODE
from lorary.model.base.packaged import find_encoder
from lorary.model.decoding.answer import bare
from lorary.model.decoding.likelihood import log_likelihood
from lorary.model.probes.lone import alone
from lorary.model.sites import embedding_rows, input_hooks, text_config
from lorary.model.text.chat_prompts import render_prompt, render_turns
from lorary.model.text.tokens import Batch, pad, start_token
from lorary.routing.contract import Split
from lorary.tasks.example import Example
from lorary.tasks.task import Tasks

_MARK = "@@"

TEXTS_AT_ONCE = 16
"""Texts that `BaseProbe` reads in one pass."""


class DataProbe:
    """Answers a router's questions, about the base while nothing is attached, and about the experts' training data."""

    def __init__(
        self,
        base: BaseModel,
        experts: Experts,
        sites: Mapping[str, Site],
        owned: Mapping[str, Sequence[str]],
        tasks: Tasks,
    ) -> None:
        """`owned`: expert -> names of its tasks."""
        self.base, self.experts, self.sites = base, experts, sites
        self.owned, self.tasks = owned, tasks

    def require_own(self) -> None:
        """Refuse an expert none of whose tasks is given. Raises E-PROBE."""
        for expert, names in self.owned.items():
            if not any(name in self.tasks and self.tasks[name].train for name in names):
                raise RoutingError(
                    "E-PROBE",
                    f"expert {expert!r}: no training examples of its tasks {list(names)} were given.",
                    "Pass the tasks that the library was built from.",
                )

    def sample_texts(self, *, n_texts: int, n_tokens: int, opening: str, seed: int) -> Tensor:
        """Let the base write texts at temperature 1 after an opening that is not part of them: ids (N, T).

        Raises E-ROWS as `over_inputs`, at once: nobody could ask about them.
        """
        require_whole(self.base.calls, self.sites)
        ids = torch.tensor([self._opening(opening)] * n_texts, device=self.base.device)
        devices = [self.base.device] if self.base.device.type != "cpu" else []
        with torch.random.fork_rng(devices, device_type=self.base.device.type), torch.inference_mode():
            torch.manual_seed(seed)
            written: Tensor = self.base.hf.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                min_new_tokens=n_tokens, max_new_tokens=n_tokens,
            )  # fmt: skip
        return written[:, ids.shape[1] :].clone()

    def _opening(self, kind: str) -> list[int]:
        tokenizer = self.base.tokenizer
        if kind == "user" and tokenizer.chat_template is not None:
            turn = [{"role": "user", "content": _MARK}]
            before = render_turns(tokenizer, turn, self.base.template_options).partition(_MARK)[0]
            if ids := list(tokenizer(before, add_special_tokens=False)["input_ids"]):
                return ids
        return [start_token(tokenizer)]

    def over_inputs(
        self, texts: Tensor, sites: Collection[str], ask: Callable[[str, Tensor], Tensor]
    ) -> Mapping[str, Tensor]:
        """Read texts (N, T) with the base alone: site -> what `ask(site, inputs (n, T, d))` gave, joined (N, ...).

        Raises E-STATE for texts that aren't tokens of this base: they may be kept in a state that came from elsewhere;
        E-ROWS for a site that is given some of the tokens only.
        """
        n_rows = embedding_rows(self.base.hf) or text_config(self.base.hf).vocab_size
        if texts.dtype != torch.long or texts.dim() != 2 or not ((texts >= 0) & (texts < n_rows)).all():
            raise RoutingError("E-STATE", "the texts that the router read aren't of this base's tokens.", "Fit anew.")
        require_whole(self.base.calls, sites)
        answers: dict[str, list[Tensor]] = {site: [] for site in sites}

        def listener(site: str) -> Any:
            # Some blocks hand over (n * T, d), or more axes.
            return lambda _, args: answers[site].append(
                ask(site, args[0].reshape(-1, texts.shape[1], args[0].shape[-1])).cpu()
            )

        with input_hooks(self.base.hf, {site: listener(site) for site in sites}), torch.inference_mode():
            for ids in texts.to(self.base.device).split(TEXTS_AT_ONCE):
                mask = torch.ones_like(ids)
                run_hidden(self.base, ids, mask, mask.cumsum(1) - 1)
        return {site: torch.cat(parts).clone() for site, parts in answers.items()}

    def tasks_of(self, expert: str) -> Sequence[str]:
        """Name the tasks that an expert was trained on."""
        return self.owned[expert]

    def learned(self, kind: str, expert: str | None = None) -> None:
        """Tell nothing: data alone is known here."""

    def mean_inputs(
        self, expert: str, *, n_examples: int, per_task: bool = False, after_answer: bool = False,
        every_token: bool = False,
    ) -> Mapping[str, Tensor]:  # fmt: skip
        """Run the expert on its own training prompts: site -> mean last-token input (d_in,), float32.

        every_token: the mean over each text's tokens instead of its last.
        """
        names = [name for name in self.owned[expert] if name in self.tasks]
        examples = [e for i in range(n_examples) for name in names for e in self.tasks[name].train[i : i + 1]]
        examples = examples if per_task else examples[:n_examples]
        require_whole(self.base.calls, self.sites)
        weights = {site: w for site, w in self.experts[expert].items() if site in self.sites}
        sums = {site: torch.zeros(self.sites[site].d_in) for site in self.sites}
        with alone(self.base, weights) as attachment:
            batches: list[Batch] = []
            adders = {
                site: _adder(sums, site, attachment.slot, batches if every_token else None) for site in self.sites
            }
            with input_hooks(self.base.hf, adders):
                self._run(examples, after_answer, batches)
        return {site: total / len(examples) for site, total in sums.items()}

    def _run(self, examples: Sequence[Example], with_answers: bool, batches: list[Batch]) -> None:
        """Read examples; the last of `batches` is the one that is being read."""
        rows = self.base.encode(examples)
        if not with_answers:
            rows = [replace(row, completion=()) for row in rows]
        for group in self.base.in_groups(rows):
            batch = pad([rows[i] for i in group]).to(self.base.device)
            batches[:] = [batch]
            with torch.inference_mode():
                run_hidden(self.base, batch.ids, batch.mask, batch.positions)

    def prompt_features(
        self, encoder: str, *, n_examples: int, split: Split = "train", every_task: bool = False
    ) -> tuple[Tensor, Sequence[str]]:
        """Encode the prompts of tasks: features (N, F) float32 and the task name of each. Raises E-PROBE for none."""
        owned = {name for names in self.owned.values() for name in names if name in self.tasks}
        names = sorted(self.tasks) if every_task else sorted(owned)
        examples = [(e, name) for name in names for e in getattr(self.tasks[name], split)[:n_examples]]
        if not examples:
            what = f"the tasks that were given have no examples in their part {split!r}."
            raise RoutingError("E-PROBE", what, "Give tasks that have some, or read another part (split=train).")
        texts = [render_prompt(self.base.tokenizer, e, self.base.template_options) for e, _ in examples]
        return make_encoder(encoder, self.base)(texts), [name for _, name in examples]

    def answer_losses(
        self, expert: str, tasks: Sequence[str], *, split: Split, start: int, stop: int
    ) -> Mapping[str, tuple[float, int]]:
        """Judge the examples from start to stop of each task with one expert: the sum of nats, and of how many."""
        examples = {task: getattr(self.tasks[task], split)[start:stop] for task in tasks}
        flat = [example for some in examples.values() for example in some]
        if not flat:
            return dict.fromkeys(tasks, (0.0, 0))
        weights = {site: w for site, w in self.experts[expert].items() if site in self.sites}
        with alone(self.base, weights):
            nats = iter([-found.nats for found in log_likelihood(self.base, flat, bare(self.base.hf))])
        return {task: (sum(next(nats) for _ in some), len(some)) for task, some in examples.items()}


def _adder(sums: dict[str, Tensor], site: str, slot: Slot, batches: Sequence[Batch] | None) -> Any:
    """Make a hook that adds up a site's inputs: at the last tokens, or means over those of each row, of `batches`."""

    def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert slot.shape is not None
        h = args[0].reshape(slot.shape[0], -1, args[0].shape[-1])  # some blocks hand over (B * T, d), or more axes
        if batches is None:
            sums[site] += h[:, -1].float().sum(0).cpu()  # rows are padded on the left
            return
        is_real = batches[-1].mask.unsqueeze(-1).to(h.device)  # (B, T, 1)
        sums[site] += (h.float().where(is_real > 0, 0.0).sum(1) / is_real.sum(1)).sum(0).cpu()

    return add


def run_hidden(base: BaseModel, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """Run the base up to its last hidden states (B, T, d)."""
    nowhere = torch.zeros_like(mask, dtype=torch.bool)
    with base.head_at(nowhere):
        output = base.hf(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, output_hidden_states=True
        )
    hidden: Tensor = output.hidden_states[-1]
    return hidden


class _BaseEncoder:
    """Mean of the base's own last hidden states over the real tokens."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Encode texts -> (N, d) float32."""
        rows = self.base.encode([Example(t, "") for t in texts])
        features = torch.zeros(len(texts), text_config(self.base.hf).hidden_size)
        for group in self.base.in_groups(rows):
            batch = pad([rows[i] for i in group], with_completion=False).to(self.base.device)
            with torch.inference_mode():
                hidden = run_hidden(self.base, batch.ids, batch.mask, batch.positions).float()
            mask = batch.mask.unsqueeze(-1)
            features[group] = ((hidden * mask).sum(1) / mask.sum(1)).cpu()
        return features


class _MiniLM:
    """all-MiniLM-L6-v2 from its PyPI package: mean pooling, unit length, as the model card says."""

    def __init__(self, base: BaseModel) -> None:
        self.device = base.device
        self._directory = find_encoder()  # told now, and not when the first text comes

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        directory = str(self._directory)
        tokenizer = AutoTokenizer.from_pretrained(directory, **NO_CODE)
        return tokenizer, AutoModel.from_pretrained(directory, **NO_CODE).to(self.device).eval()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Encode texts -> (N, 384) float32."""
        tokenizer, model = self._parts
        found = []
        for start in range(0, len(texts), 64):
            batch = tokenizer(
                list(texts[start : start + 64]), padding=True, truncation=True, max_length=256, return_tensors="pt"
            ).to(self.device)
            with torch.inference_mode():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            found.append(nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).cpu())
        return torch.cat(found)


def make_encoder(name: str, base: BaseModel) -> Any:
    """Make the text encoder that a router names: texts -> (N, F) float32 on the CPU."""
    return {"base": _BaseEncoder, "minilm": _MiniLM}[name](base)
