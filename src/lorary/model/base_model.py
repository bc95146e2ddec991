"""The base: load, freeze, fingerprint, list sites."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig

from lorary.adapters.base import Site
from lorary.adapters.tensor_file import filled_by_others
from lorary.disk import near_path
from lorary.errors import LibraryError, ModelError, OptionError, known_names
from lorary.evaluation.base import LogLikelihood
from lorary.library import sync
from lorary.model.base_config import NO_CODE
from lorary.model.chat import read_template
from lorary.model.embedded import embedded_directory
from lorary.model.embedded_needs import EMBEDDED, EMBEDDED_HUB_ID
from lorary.model.fingerprint import exact_facts, sign_facts
from lorary.model.named_bases import remember_base
from lorary.model.reading import longest_text, stop_tokens
from lorary.model.speaking import answer, score
from lorary.model.tokens import Encoded, encode, reading_facts, turn_end, warn_of_cuts
from lorary.model.whole_base import open_base
from lorary.options import require, require_count
from lorary.tasks.example import Example

ATTENTION = "attention"
"""Stands in `targets` for all linear layers of the attention blocks, the output projection included (ATT+O)."""


@dataclass(eq=False)
class BaseModel:
    """A frozen causal language model with its tokenizer.

    `name`: what goes into an adapter's base_model_name_or_path. `max_tokens`: the longest text it is given, in tokens;
    by default what it reads. `template_options`: what its chat template is given beside the turns, as enable_thinking.
    `batch_tokens`: the most padded tokens of a batch in scoring and generation; by default as speed and memory allow.
    `directory`: where it was loaded from, None for what isn't a directory that somebody named.
    `vocab_size`: how many rows its embedding had before others were added, which don't count in its fingerprint.
    `sites`: all linear layers an adapter may sit on, by module path; the head is not among them.
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
        self.hf.requires_grad_(False)
        self.hf.eval()
        # Listed now: once experts are attached, the layers have other places.
        self.sites = _list_sites(self.hf)
        names = list(self.sites)
        self._sample = [self.hf.get_submodule(names[i]) for i in (0, len(names) // 2, -1) if names]
        self._head_mask: Tensor | None = None
        self.hf.get_output_embeddings().register_forward_pre_hook(self._select_positions)
        eos, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        n_rows = getattr(self.hf.get_input_embeddings(), "num_embeddings", None)
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

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in; quantised weights are stored in less."""
        dtype = self.hf.get_input_embeddings().weight.dtype
        if dtype.is_floating_point:
            return dtype
        return next((p.dtype for p in self.hf.parameters() if p.dtype.is_floating_point), torch.get_default_dtype())

    def target_sites(self, targets: Sequence[str]) -> list[Site]:
        """List the sites that targets name: last parts of module paths, or "attention".

        Raises E-TARGET if one names nothing.
        """
        chosen: dict[str, Site] = {}
        for target in targets:
            found = self._named(target)
            if not found:
                known = sorted({name.rpartition(".")[2] for name in self.sites})
                raise ModelError(
                    "E-TARGET",
                    f"{target!r} names no linear layer of the base.",
                    known_names(target, [*(word for word in [ATTENTION] if self._named(word)), *known]),
                )
            chosen |= found
        return [chosen[name] for name in self.sites if name in chosen]

    def _named(self, target: str) -> dict[str, Site]:
        return {name: site for name, site in self.sites.items() if _is_target(name, target)}

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

    def encode(self, examples: Sequence[Example], *, quiet: bool = False) -> list[Encoded]:
        """Turn examples into ids as this base reads them. Warns of prompts that are cut, unless quiet.

        Raises E-LENGTH, E-CHAT.
        """
        rows = encode(self.tokenizer, examples, max_tokens=self.max_tokens, options=self.template_options)
        if not quiet:
            warn_of_cuts(rows, self.max_tokens)
        return rows

    def log_likelihood(self, examples: Sequence[Example]) -> list[LogLikelihood]:
        """Score each example's completion, end of sequence included, in nats."""
        return score(self, examples, lambda _: nullcontext())

    def generate_text(self, examples: Sequence[Example], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """Answer each example's prompt greedily, until one of its stop tokens, or before one of the texts `stop`."""
        return answer(self, examples, lambda _: nullcontext(), max_new_tokens=max_new_tokens, stop=stop)

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

    def write(self, directory: Path) -> None:
        """Write weights, config and tokenizer to a directory that `load_base` and transformers open."""
        with filled_by_others(directory):
            self.hf.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)

    @contextmanager
    def head_at(self, mask: Tensor) -> Iterator[None]:
        """Compute the head only where mask (B, T) is True: logits come out as (1, n, V), row by row.

        At the input of the head, so that it holds for every architecture and whatever follows its head.
        """
        self._head_mask = mask
        try:
            yield
        finally:
            self._head_mask = None

    def _select_positions(self, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self._head_mask is not None:
            return (args[0][self._head_mask].unsqueeze(0), *args[1:])
        # On a strided slice, such as generation's last column, torch copies the head once per row: 3 GiB for 60 rows.
        return (args[0].contiguous(), *args[1:])


def _list_sites(hf: Any) -> dict[str, Site]:
    """List what looks like a linear layer, whatever its class: quantised layers are called as any other.

    What is inside of one belongs to it.
    """
    head, sites = hf.get_output_embeddings(), dict[str, Site]()
    for name, module in hf.named_modules():
        widths = _widths(module)
        if widths and module is not head and not any(name.startswith(f"{outer}.") for outer in sites):
            sites[name] = Site(name, *widths)
    return sites


def _widths(module: nn.Module) -> tuple[int, int] | None:
    """Give (d_in, d_out) of what has in_features and out_features, or GPT-2's nx and nf; None for anything else."""
    for names in (("in_features", "out_features"), ("nx", "nf")):
        widths = [getattr(module, name, None) for name in names]
        if all(type(width) is int for width in widths):
            return widths[0], widths[1]  # type: ignore[return-value]
    return None


def _is_target(name: str, target: str) -> bool:
    if target == ATTENTION:
        return any("attn" in part or "attention" in part for part in name.split(".")[:-1])
    return name == target or name.endswith("." + target)


@torch.inference_mode(False)  # weights made in that mode can take part in no training
def load_base(
    name: str = EMBEDDED,
    *,
    device: str = "auto",
    dtype: str = "auto",
    max_tokens: int | None = None,
    template_options: Mapping[str, Any] | None = None,
    batch_tokens: int | None = None,
    chat_template: str | os.PathLike[str] | None = None,
    vocab_size: int | None = None,
) -> BaseModel:
    """Load and freeze a base: the embedded one, a directory, or a Hub id.

    device "auto": the first GPU if there is one. dtype "auto": bfloat16 where the device computes faster with it,
    else float32.
    max_tokens: the longest text it is given, prompt and answer together, in tokens; by default what it reads. Longer
    prompts lose their start, with a warning. template_options: what its chat template is given beside the turns, as
    {"enable_thinking": False}. batch_tokens: the most padded tokens that are scored or generated at once; by default as
    speed and memory allow. chat_template: a file with the template that counts instead of its own.
    vocab_size: how many rows its embedding had before others were added, for a token or to round it up: what was made
    on it then fits it still, and all else is compared as ever.
    Raises E-BASE for what can't be loaded or isn't whole, E-OPTION, E-HUB within 10 seconds if the Hub can't be
    reached.
    """
    require("name", name, (str, os.PathLike), "a name or a directory")
    name, place = os.fspath(name), _device(device)
    remember_base(name)
    kind = _dtype(dtype, place)
    source, shown = (embedded_directory(), EMBEDDED_HUB_ID) if name == EMBEDDED else (_find(name), name)
    template = None if chat_template is None else read_template(chat_template)
    hf, tokenizer = open_base(source, name, kind)
    tokenizer.chat_template = template or tokenizer.chat_template
    if batch_tokens is not None:
        require_count("batch_tokens", batch_tokens)
    directory = Path(name).absolute() if name != EMBEDDED and Path(name).is_dir() else None
    options = dict(template_options or {})
    return BaseModel(hf.to(place), tokenizer, shown, max_tokens, options, batch_tokens, directory, vocab_size)


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
        raise ModelError(error.code, f"base {error.message}", hint) from error
    return name


def _device(device: str) -> torch.device:
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError("E-DEVICE", f"device {device!r} can't be used: {str(error).partition(chr(10))[0]}") from error


def _dtype(dtype: str, device: torch.device) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype != "auto":
        if dtype not in known:
            raise ModelError("E-DTYPE", f"dtype {dtype!r} is unknown.", known_names(dtype, ["auto", *known]))
        return known[dtype]
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float32
    return torch.bfloat16
