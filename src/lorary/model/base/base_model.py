"""The base: load, freeze, fingerprint, list sites."""

import copy
import difflib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from transformers import AutoModelForCausalLM, GenerationConfig

from lorary.adapters.contract import Site
from lorary.disk.reading import near_path
from lorary.errors import LibraryError, ModelError, OptionError
from lorary.evaluation.contract import LogLikelihood, Wanted
from lorary.formats.tensor_file import filled_by_others
from lorary.library import sync
from lorary.library.adapter.targets import module_of
from lorary.library.base_names import shared_name
from lorary.model.base.calls import Calls, listen_to_calls, reads_in_parts
from lorary.model.base.config import NO_CODE
from lorary.model.base.device import find_device, find_dtype
from lorary.model.base.embedded import embedded_directory
from lorary.model.base.embedded_needs import EMBEDDED, EMBEDDED_HUB_ID
from lorary.model.base.fingerprint import exact_facts, sign_facts, telling_layers
from lorary.model.base.named_bases import called, find_shared, remember_base
from lorary.model.base.whole import check_model, open_base, take_tokenizer
from lorary.model.decoding.answer import Answering, answer, bare
from lorary.model.decoding.likelihood import log_likelihood
from lorary.model.decoding.sequences import Caller
from lorary.model.sites import choose_sites, embedding_rows, list_sites, list_slices
from lorary.model.text.chat_prompts import read_template
from lorary.model.text.text_limits import longest_text, stop_tokens
from lorary.model.text.tokens import Encoded, by_length, encode, reading_facts, turn_end, warn_of_cuts
from lorary.options import require, require_count
from lorary.tasks.example import Example


@dataclass(eq=False)
class BaseModel:
    """A frozen causal language model with its tokenizer.

    `name`: what goes into an adapter's base_model_name_or_path; an absolute path becomes its `shared_name`.
    `max_tokens`: the longest text it is given, in tokens; by default what it reads.
    `template_options`: what its chat template is given beside the turns, as enable_thinking.
    `batch_tokens`: the most padded tokens of a batch in scoring and generation; by default as speed and memory allow.
    `directory`: where it was loaded from, None for what isn't a directory that somebody named.
    `vocab_size`: how many rows its embedding had before others were added, which don't count in its fingerprint.
    `sites`: its linear layers but the head, by module path. `slices`: matrices of fused experts. `routable`: both.
    `stop_tokens`: what ends an answer.
    """

    hf: Any
    tokenizer: Any
    name: str
    max_tokens: Any = None
    template_options: Mapping[str, Any] = field(default_factory=dict)
    batch_tokens: int | None = None
    directory: Path | None = None
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        """Freeze the weights and silence the sampling defaults that a model may bring along. Raises E-OPTION."""
        self.name = shared_name(self.name)
        self.hf.requires_grad_(False)
        self.hf.eval()
        # Listed now: once experts are attached, the layers have other places.
        self.sites, self.slices = list_sites(self.hf), list_slices(self.hf)
        self.routable = {**self.sites, **self.slices}
        self._sample = telling_layers(self.hf, self.sites)
        self._head_at: Tensor | tuple[Tensor, Tensor] | None = None
        self.hf.get_output_embeddings().register_forward_pre_hook(self._select_positions)
        eos, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        n_rows = embedding_rows(self.hf)
        if pad is None or (n_rows is not None and pad >= n_rows):  # sequences that have ended are read on
            pad = eos
        if self.vocab_size is not None:
            require_count("vocab_size", self.vocab_size)
            if n_rows is not None and self.vocab_size > n_rows:
                what = f"vocab_size={self.vocab_size}, but the embedding of base {self.name!r} has {n_rows} rows."
                raise OptionError("E-OPTION", what, "Give how many it had before rows were added.")
        self.stop_tokens = stop_tokens(self.hf, self.tokenizer)
        stops = self.stop_tokens if len(self.stop_tokens) > 1 else eos
        self.hf.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=pad)
        self.max_tokens: int = longest_text(self.hf, self.tokenizer, self.max_tokens)

    def __enter__(self) -> "BaseModel":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Do nothing: there are no experts to take out, as there are in a `RoutedModel`."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.hf.parameters()).device

    def device_of(self, site: str) -> torch.device:
        """Where a layer computes: on one device with all others, unless the base is spread over several."""
        layer = self.hf.get_submodule(module_of(site))
        if (device := getattr(getattr(layer, "_hf_hook", None), "execution_device", None)) is not None:
            return torch.device(device)  # where Accelerate brings it
        return next(itertools.chain(layer.parameters(), layer.buffers(), self.hf.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in; quantised weights are stored in less."""
        dtype = self.hf.get_input_embeddings().weight.dtype
        if dtype.is_floating_point:
            return dtype
        return next((p.dtype for p in self.hf.parameters() if p.dtype.is_floating_point), torch.get_default_dtype())

    def target_sites(self, targets: Sequence[str]) -> list[Site]:
        """List the sites that targets name: last parts of module paths, "attention", or "all-linear".

        Raises E-TARGET if one names nothing.
        """
        return choose_sites(self.sites, targets, self.calls.idle)

    @cached_property
    def calls(self) -> Calls:
        """How it calls its layers: found out by calling it, once, as soon as somebody asks."""
        if self.device.type == "meta":  # an outline computes nothing
            return Calls(frozenset(), frozenset(self.slices), hides_padding=True)
        return listen_to_calls(self.hf, self.sites, self.slices)

    @cached_property
    def in_parts(self) -> int:
        """The longest row that it reads in parts as it reads it whole, so that rows can share their beginning; or 0."""
        return reads_in_parts(self.hf) if self.calls.hides_padding else 0

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What tells this base from others: architecture, sizes, vocabulary, a hash of a few weights and of some signs.

        What two fingerprints both have is compared. float32 and bfloat16 share the hash of weights; any other precision
        has one of its own, with its name in the key. The signs are the same in all.
        """
        return {**self._exact_facts, **sign_facts(self.hf, self.vocab_size)}

    @cached_property
    def _exact_facts(self) -> dict[str, Any]:
        padded = {} if self.vocab_size is None else {"vocab_size": self.vocab_size}
        return exact_facts(self.hf, self._sample) | padded

    @property
    def identity(self) -> Mapping[str, Any]:
        """What this model is, for the header of a run and the keys of what is built on it and of routers' states."""
        return {
            "base": self._exact_facts,
            "reads": reading_facts(self.tokenizer, self.template_options),
            "max_tokens": self.max_tokens,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def in_groups(self, rows: Sequence[Encoded], **limits: Any) -> Iterator[list[int]]:
        """Group row numbers for padded batches, as `tokens.by_length`; of equal length if this base reads padding."""
        differ = len({len(row) for row in rows}) > 1
        return by_length(rows, equal=differ and not self.calls.hides_padding, **limits)

    def encode(self, examples: Sequence[Example], *, quiet: bool = False, open_end: bool = False) -> list[Encoded]:
        """Turn examples into ids as this base reads them. Warns of prompts that are cut, unless quiet.

        open_end: without the end of sequence. Raises E-LENGTH, E-CHAT.
        """
        options = self.template_options
        rows = encode(self.tokenizer, examples, max_tokens=self.max_tokens, options=options, open_end=open_end)
        if not quiet:
            warn_of_cuts([row.n_cut for row in rows], self.max_tokens)
        return rows

    @property
    def base(self) -> "BaseModel":
        """Itself, as a routed model has its base."""
        return self

    @property
    def caller(self) -> Caller:
        """How it is called for examples: without experts."""
        return bare(self.hf)

    def log_likelihood(self, examples: Sequence[Example], *, open_end: bool = False) -> list[LogLikelihood]:
        """Score each example's completion in nats, end of sequence included, or with an open end."""
        return log_likelihood(self, examples, self.caller, open_end=open_end)

    def generate_text(self, examples: Sequence[Example], *, max_new_tokens: int, **how: Unpack[Wanted]) -> list[str]:
        """Answer each example's prompt greedily, or as `how` says, until a stop token of the base."""
        return answer(self, examples, self.caller, Answering(max_new_tokens, **how))

    @cached_property
    def turn_end(self) -> int | None:
        """The token that ends an answer in a chat, where its template has one."""
        return turn_end(self.tokenizer, self.template_options)

    def trainable_copy(self) -> "BaseModel":
        """Copy it in float32, sharing nothing, to train all weights."""
        with torch.random.fork_rng():  # fresh weights are drawn before these replace them
            hf = AutoModelForCausalLM.from_config(self.hf.config, dtype=torch.float32, **NO_CODE)
        hf.load_state_dict(self.hf.state_dict())
        hf.generation_config = self.hf.generation_config
        return replace(self, hf=hf.to(self.device))

    def write(self, directory: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write weights, these in the place of its own, config and tokenizer; `load_base` and transformers open it."""
        with filled_by_others(directory):
            self.hf.save_pretrained(directory, **({"state_dict": self.hf.state_dict() | weights} if weights else {}))
            self.tokenizer.save_pretrained(directory)

    @contextmanager
    def head_at(self, where: Tensor | tuple[Tensor, Tensor]) -> Iterator[None]:
        """Compute the head only where a mask (B, T) is True, or at rows and columns (n,): logits come out as (1, n, V).

        At the input of the head, so that it holds for every architecture and whatever follows its head.
        """
        self._head_at = where
        try:
            yield
        finally:
            self._head_at = None

    def _select_positions(self, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self._head_at is not None:
            return (args[0][_on(args[0].device, self._head_at)].unsqueeze(0), *args[1:])
        # On a strided slice, such as generation's last column, torch copies the head once per row: 3 GiB for 60 rows.
        return (args[0].contiguous(), *args[1:])


def _on(device: torch.device, where: Any) -> Any:
    """Give a mask, or rows and columns, where the head is: the layers of a base may be spread over devices."""
    return tree_map(lambda part: part.to(device), where)


@torch.inference_mode(False)  # weights made in that mode can take part in no training
def load_base(
    name: Any = EMBEDDED,
    *,
    device: str = "auto",
    dtype: str = "auto",
    device_map: Any = None,
    attention: str | None = None,
    tokenizer: Any = None,
    max_tokens: int | None = None,
    template_options: Mapping[str, object] | None = None,
    batch_tokens: int | None = None,
    chat_template: str | os.PathLike[str] | None = None,
    vocab_size: int | None = None,
) -> BaseModel:
    """Load and freeze a base: the embedded one, a directory, a Hub id, or a model of transformers, loaded already.

    device "auto": the first GPU if there is one. dtype "auto": bfloat16 where the device computes faster with it,
    else float32.
    device_map: spread the layers over several devices, as Accelerate does: "auto", or {module: device}; experts are
    routed there, but not trained. attention: how it is computed, as transformers names it: "eager", "sdpa", ...; by
    default as the base says. tokenizer: one, or its directory or Hub id; by default what lies beside the base. A model
    that is given stays where it is, in its precision; it is frozen, and needs its tokenizer beside it or here.
    max_tokens: the longest text it is given, prompt and answer together, in tokens; by default what it reads. Longer
    prompts lose their start, with a warning. template_options: what its chat template is given beside the turns, as
    {"enable_thinking": False}. batch_tokens: the most padded tokens that are scored or generated at once; by default as
    speed and memory allow. chat_template: a file with the template that counts instead of its own.
    vocab_size: how many rows its embedding had before others were added, for a token or to round it up: what was made
    on it then fits it still, and all else is compared as ever.
    Raises E-BASE for what can't be loaded or isn't whole, E-OPTION, E-HUB within 10 seconds if the Hub can't be
    reached.
    """
    if batch_tokens is not None:
        require_count("batch_tokens", batch_tokens)
    require("name", name, (str, os.PathLike, nn.Module), "a name, a directory, or a model of transformers")
    template = None if chat_template is None else read_template(chat_template)
    reading: dict[str, Any] = {
        "max_tokens": max_tokens, "template_options": dict(template_options or {}), "batch_tokens": batch_tokens,
        "vocab_size": vocab_size,
    }  # fmt: skip
    if isinstance(name, nn.Module):
        given = {"device": device != "auto", "dtype": dtype != "auto", "device_map": device_map, "attention": attention}
        return _take(name, tokenizer, template, [option for option, value in given.items() if value], reading)
    name = os.fspath(name)
    name = find_shared(name) or name
    if device_map is not None and device != "auto":
        raise OptionError("E-OPTION", f"device={device!r} and device_map={device_map!r}.", "Give one of the two.")
    place = find_device(device)
    remember_base(name)
    kind = find_dtype(dtype, place)
    source, shown = (embedded_directory(), EMBEDDED_HUB_ID) if name == EMBEDDED else (_find(name), called(name))
    hf, tokenizer = open_base(source, name, kind, tokenizer=tokenizer, device_map=device_map, attention=attention)
    directory = Path(name).absolute() if name != EMBEDDED and Path(name).is_dir() else None
    hf, tokenizer = hf if device_map is not None else hf.to(place), _templated(tokenizer, template)
    return BaseModel(hf, tokenizer, shown, directory=directory, **reading)


def _take(hf: Any, tokenizer: Any, template: str | None, unheard: list[str], reading: Mapping[str, Any]) -> BaseModel:
    check_model(hf)
    if unheard:
        raise OptionError("E-OPTION", f"{unheard[0]}=... beside a model that is loaded.", "Load it so yourself.")
    name = hf.config.name_or_path
    if tokenizer is None and not name:
        raise OptionError("E-OPTION", "a model without its tokenizer.", "Write load_base(model, tokenizer=tokenizer).")
    name = name or type(hf).__name__
    directory = Path(name).absolute() if Path(name).is_dir() else None
    remember_base(name)
    tokenizer = _templated(take_tokenizer(tokenizer or name, name, hf), template)
    return BaseModel(hf, tokenizer, called(name), directory=directory, **reading)


def _templated(tokenizer: Any, template: str | None) -> Any:
    """Give a tokenizer a chat template, or leave it its own; the caller's isn't changed."""
    if template is None:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


def _find(name: str) -> str:
    if Path(name).is_dir():
        return name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        hint = near_path(Path(name)) or f"Known without network: {EMBEDDED!r}."
        raise ModelError("E-BASE", f"there is no directory {name!r}.", hint)
    if near := difflib.get_close_matches(name, [EMBEDDED], cutoff=0.6):
        raise ModelError("E-BASE", f"there is no base {name!r}.", f"Did you mean {near[0]!r}?")
    try:
        sync.reach_hub(name)
    except LibraryError as error:
        hint = f"{error.hint} The embedded base {EMBEDDED!r} needs no Hub."
        raise error.reworded(f"base {error.message}", hint) from error
    return name
