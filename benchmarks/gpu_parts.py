"""The parts of `gpu.py`: each appends rows as it goes, and stops when its time is up."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from subjects import ATTENTION, peft_arrow, twin
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

import lorary as lo
from lorary.adapters.contract import Experts, Site, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.mixing.on_gpu import kernels_for
from lorary.adapters.mixing.tuning import Strategy
from lorary.building.builders.private import Private
from lorary.building.training.packs import fresh_starts, packed
from lorary.building.training.trainable import Pupil, Row
from lorary.model.attached.attachment import Attachment, RoutedLinear
from lorary.model.attached.slot import Slot
from lorary.model.base.base_model import BaseModel, load_base
from lorary.model.text.scoring import row_losses
from lorary.model.text.tokens import Encoded, pad
from lorary.routing.members import stack_members
from lorary.routing.routers.arrow import Arrow
from lorary.tasks.toy import toy_tasks
from lorary.testing.pico import pico_base, pico_tokenizer, random_library

RANK = KEPT = 4
Rows = list[Any]


@dataclass(frozen=True)
class Scale:
    """How large everything is. shapes: name -> sizes of a Llama."""

    device: torch.device
    dtype: torch.dtype
    width: int
    tokens: tuple[int, ...]
    experts: tuple[int, ...]
    shapes: Mapping[str, Mapping[str, int]]
    prompt: int
    row_tokens: int
    packs: tuple[int, ...]
    opened: int
    seconds: float

    @classmethod
    def whole(cls) -> "Scale":
        """Take the sizes that are published, on the first GPU."""
        one = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
               "num_key_value_heads": 8, "vocab_size": 128256}  # fmt: skip
        eight = one | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
        return cls(
            torch.device("cuda"), torch.bfloat16, 4096, (1, 32, 512, 4096), (8, 64, 256, 1024),
            {"1B": one, "8B": eight}, prompt=512, row_tokens=512, packs=(8, 32), opened=256, seconds=0.25,
        )  # fmt: skip

    @classmethod
    def tiny(cls) -> "Scale":
        """Take sizes that a CPU does in a few seconds."""
        tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "vocab_size": 258}  # fmt: skip
        return cls(
            torch.device("cpu"), torch.float32, 32, (1, 8), (8, 64), {"8B": tiny},
            prompt=16, row_tokens=16, packs=(2, 8), opened=4, seconds=0.0,
        )  # fmt: skip


def timed(scale: Scale, run: Callable[[], object]) -> float:
    """Give the median seconds of a call: three at least, as many as fit in the scale's time."""
    for _ in range(2):
        run()
    _wait(scale)
    found: list[float] = []
    until = time.monotonic() + scale.seconds
    while len(found) < 3 or (time.monotonic() < until and len(found) < 200):
        began = time.perf_counter()
        run()
        _wait(scale)
        found.append(time.perf_counter() - began)
    return median(found)


def _wait(scale: Scale) -> None:
    if scale.device.type == "cuda":
        torch.cuda.synchronize(scale.device)


def _peak_mib(scale: Scale, run: Callable[[], object]) -> float | None:
    """Give the memory that a call takes beyond what is held; None where that isn't counted."""
    if scale.device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(scale.device)
    held = torch.cuda.memory_allocated(scale.device)
    run()
    return (torch.cuda.max_memory_allocated(scale.device) - held) / 2**20


def correctness(scale: Scale, until: float, rows: Rows) -> None:
    """Compare the device with the CPU: routers, mixes, answers, builds, the kernels' own trial, TF32."""
    device = str(scale.device)
    with torch.no_grad():
        rows.append({"what": "kernels", "works": kernels_for(torch.ones(1, device=device)) is not None})
    with tempfile.TemporaryDirectory() as place:
        pico_base().write(Path(place) / "base")
        near, far = (load_base(str(Path(place) / "base"), device=d, dtype="float32") for d in ("cpu", device))
        library = random_library(Path(place) / "lib", near, ["copy", "swap", "upper", "first"])
        ids = torch.arange(2, 50).view(4, 12)
        for router in ("arrow:top_k=2", "compass:top_k=2,n_texts=4,n_tokens=8", "spectr", "uniform"):
            for mix in ("factors", "outputs"):
                with lo.route(near, library, router, mix=mix) as model:
                    model.save(Path(place) / f"{mix}-{rows_name(router)}")
                    expected, answer = model(ids).logits, model.generate(ids, max_new_tokens=8)
                with lo.load(Path(place) / f"{mix}-{rows_name(router)}", base=far) as model, _tf32(), torch.no_grad():
                    found = model(ids.to(far.device)).logits.cpu()
                    same = torch.equal(model.generate(ids.to(far.device), max_new_tokens=8).cpu(), answer)
                apart = float((found - expected).abs().max() / expected.abs().max())
                right = same and apart < 1e-3
                rows.append({"what": router, "mix": mix, "apart": apart, "same_answers": same, "right": right})
        for builder in ("private", "poly"):
            losses = []
            for i, base in enumerate((near, far)):
                spec = f"{builder}:steps=4,batch_size=2,rank=2,n_evaluations=1,dropout=0"
                made = lo.build(
                    spec, toy_tasks(8, 2, 2).only(["copy", "swap"]), base, into=Path(place) / f"{builder}{i}"
                )
                losses.append([expert.provenance.metrics for _, expert in sorted(made.items())])
            rows.append({"what": f"build {builder}", "losses": losses})


def rows_name(router: str) -> str:
    """Make a directory's name of a router's."""
    return router.partition(":")[0]


@contextmanager
def _tf32() -> Iterator[None]:
    """Let products be rounded in the block: the choice of experts mustn't be."""
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def _parts(scale: Scale, sites: Mapping[str, Site], n: int) -> tuple[Experts, dict[str, Any]]:
    """Draw n experts on the device, and prototypes: to fit them would take longer than what is measured."""
    generator = torch.Generator(scale.device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=scale.device, dtype=scale.dtype)

    experts: dict[str, dict[str, Weights]] = {f"e{i:05d}": {} for i in range(n)}
    state: dict[str, Any] = {}
    for name, site in sites.items():
        a, b = random(n, RANK, site.d_in) / site.d_in**0.5, random(n, site.d_out, RANK) * 0.05
        for i, expert in enumerate(experts.values()):
            expert[name] = Weights(a[i], b[i], 2.0)
        vectors = nn.functional.normalize(random(n, site.d_in).float(), dim=1)
        state |= stack_members(name, dict(enumerate(vectors)))
    return experts, state


def _layer_parts(experts: Experts, state: dict[str, Any], name: str, site: Site, strategy: Strategy | None) -> Any:
    bank = LowRankBank([weights[name] for weights in experts.values()], site)
    gate = Arrow(top_k=KEPT).gate(site, state, sorted(experts)).to(bank.a.device)
    bank.tune(gate.n_chosen)
    if strategy:
        bank.plan = type(bank.plan)(bank.plan.n_rows, bank.plan.rank, strategy, KEPT)
    return bank, gate


@torch.inference_mode()
def layers(scale: Scale, until: float, rows: Rows) -> None:
    """Measure one layer: each strategy and what was chosen, over the layer alone."""
    site = Site("layer", scale.width, scale.width)
    linear = nn.Linear(site.d_in, site.d_out, bias=False, device=scale.device, dtype=scale.dtype)
    for n in scale.experts:
        experts, state = _parts(scale, {"layer": site}, n)
        for t in scale.tokens:
            if time.monotonic() > until:
                return
            x = torch.randn(1, t, site.d_in, device=scale.device, dtype=scale.dtype)
            alone = timed(scale, lambda x=x: linear(x))
            row: dict[str, Any] = {"experts": n, "tokens": t, "layer_us": 1e6 * alone}
            for strategy in (None, "dense", "chosen", "kernel"):
                bank, gate = _layer_parts(experts, state, "layer", site, strategy)
                layer = RoutedLinear("layer", linear, bank, gate, Slot("outputs"))
                row[strategy or "auto"] = timed(scale, lambda x=x, layer=layer: layer(x)) / alone
                row[f"{strategy or 'auto'}_mib"] = _peak_mib(scale, lambda x=x, layer=layer: layer(x))
            rows.append(row)


def _llama(scale: Scale, sizes: Mapping[str, int]) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, max_position_embeddings=8192, pad_token_id=0, bos_token_id=None, eos_token_id=1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(scale.dtype)
    try:
        with scale.device:
            return LlamaForCausalLM(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


@torch.inference_mode()
def models(scale: Scale, until: float, rows: Rows) -> None:
    """Measure whole models: prefill, and decoding of 1 and 32 answers, as it is, captured as a graph, and PEFT's."""
    for shape, sizes in reversed(scale.shapes.items()):
        hf = _llama(scale, sizes)
        base = BaseModel(hf, pico_tokenizer(), shape)
        sites = {name: site for name, site in base.sites.items() if name.rpartition(".")[2] in ATTENTION}
        for n in scale.experts[:3]:
            if time.monotonic() > until:
                return
            experts, state = _parts(scale, sites, n)
            variants = {"base": hf, "own": twin(hf)}
            parts = {name: _layer_parts(experts, state, name, site, None) for name, site in sites.items()}
            Attachment(variants["own"], parts, Slot("outputs"))
            if n in (64, 256) or scale.device.type == "cpu":
                variants["peft"] = peft_arrow(twin(hf), experts, state)
            for phase, batch in (("prefill", 1), ("decode", 1), ("decode", 32)):
                rows.append({"shape": shape, "experts": n, "phase": phase, "batch": batch})
                for name, model in variants.items():
                    if time.monotonic() < until and (name != "peft" or batch == 1):
                        rows[-1] |= _measured(scale, name, model, phase, batch)
                rows[-1] |= _ratios(rows[-1])
            del variants, parts, experts, state


def _measured(scale: Scale, name: str, model: Any, phase: str, batch: int) -> dict[str, float | str | None]:
    vocabulary = model.config.vocab_size
    ids = torch.randint(2, vocabulary, (batch, scale.prompt), device=scale.device)
    if phase == "prefill":

        def run() -> object:
            return model(input_ids=ids, use_cache=False, logits_to_keep=1)

        return {f"{name}_ms": 1e3 * timed(scale, run), f"{name}_mib": _peak_mib(scale, run)}
    cache = StaticCache(config=model.config, max_cache_len=scale.prompt + 8)
    last, place = ids[:, :1].clone(), torch.full((batch, 1), scale.prompt, device=scale.device)
    word = "cache" if "cache" in model.forward.__code__.co_varnames else "past_key_values"

    def step() -> object:
        return model(input_ids=last, position_ids=place, use_cache=True, **{word: cache}).logits

    found: dict[str, float | str | None] = {f"{name}_ms": 1e3 * timed(scale, step)}
    if scale.device.type == "cuda" and name != "peft":  # PEFT's Arrow asks the device for numbers
        try:
            found[f"{name}_graph_ms"] = 1e3 * timed(scale, _captured(scale, step))
        except RuntimeError as error:  # the rest is measured all the same
            found[f"{name}_graph_error"] = str(error)
    return found


def _captured(scale: Scale, step: Callable[[], object]) -> Callable[[], object]:
    """Capture a step as a CUDA graph, which a routed call allows since it asks the device nothing."""
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream(scale.device)
    with torch.cuda.stream(side):
        step()
    side.synchronize()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _ratios(row: dict[str, Any]) -> dict[str, float]:
    found = {}
    pairs = [("own_ms", "base_ms"), ("own_graph_ms", "base_graph_ms")]
    ratios = [row[own] / row[base] for own, base in pairs if own in row and base in row]
    if ratios:
        found["best_over_base"] = ratios[-1]
    if "peft_ms" in row and "own_ms" in row:
        found["peft_over_best"] = row["peft_ms"] / min(row["own_ms"], row.get("own_graph_ms", row["own_ms"]))
    return found


def training(scale: Scale, until: float, rows: Rows) -> None:
    """Measure steps of experts in a pack against PEFT's, one expert after another, over the smallest shape."""
    sizes = next(iter(scale.shapes.values()))
    base = BaseModel(_llama(scale, sizes), pico_tokenizer(), "trained")
    options = Private(rank=RANK, batch_size=1, targets=ATTENTION)
    text = Encoded((5,), tuple(range(2, 1 + scale.row_tokens)))
    alone = get_peft_model(twin(base.hf), LoraConfig(r=RANK, target_modules=list(ATTENTION)))
    optimiser = torch.optim.AdamW([p for p in alone.parameters() if p.requires_grad], fused=True)
    batch = pad([text]).to(scale.device)

    def one() -> None:
        labels = batch.ids.masked_fill(batch.positions == 0, -100)
        alone(input_ids=batch.ids, attention_mask=batch.mask, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    single = timed(scale, one)
    for n in scale.packs:
        if time.monotonic() > until:
            return
        pupils = [Pupil(f"p{i:02d}", [text], []) for i in range(n)]
        _, starts = fresh_starts(options, n, base)
        with packed(pupils, base, starts, 0.0, 1e-4, 1) as (trainable, _):
            (stack,) = trainable.stacks.values()
            together = torch.optim.AdamW([stack.values], fused=True)
            seen = [Row(text, i, 0, 0) for i in range(n)]

            def step(
                trainable: Any = trainable, stack: Any = stack, together: Any = together, seen: Any = seen
            ) -> None:
                whole = pad([row.text for row in seen]).to(scale.device)
                with trainable.turn(seen, mask=whole.mask):
                    row_losses(trainable.model, whole).div(scale.row_tokens).sum().backward()
                together.step()
                stack.grad.zero_()

            pack = timed(scale, step)
            peak = _peak_mib(scale, step)
        rows.append({"experts": n, "pack_ms": 1e3 * pack, "peft_each_ms": 1e3 * single,
                     "peft_over_packed": n * single / pack, "pack_mib": peak})  # fmt: skip


def opening(scale: Scale, until: float, rows: Rows) -> None:
    """Measure how long it takes to route a library of many experts on the smallest shape, prototypes included."""
    base = BaseModel(_llama(scale, next(iter(scale.shapes.values()))), pico_tokenizer(), "opened")
    with tempfile.TemporaryDirectory() as place:
        library = random_library(Path(place) / "lib", base, scale.opened)
        began = time.monotonic()
        with lo.route(base, library, "arrow"):
            _wait(scale)
            rows.append({"experts": scale.opened, "seconds": time.monotonic() - began})


PARTS: Mapping[str, tuple[float, Callable[[Scale, float, Rows], None]]] = {
    "correctness": (60.0, correctness),
    "layers": (60.0, layers),
    "models": (130.0, models),
    "training": (50.0, training),
    "opening": (50.0, opening),
}
"""Name -> the seconds that it may take, and what it does."""
