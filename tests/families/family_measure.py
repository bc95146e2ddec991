"""What lorary does on one model family: run on a tiny random model of it, every cell of the table of families.

A cell is "yes", or why not in the words of the refusal; whatever else goes wrong is raised.
"""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

import lorary as lo
from lorary.adapters.lora import LoRA
from lorary.errors import LoraryError
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel, load_base
from lorary.model.base.peft_limits import closed_to_peft
from lorary.tasks.toy import toy_tasks
from lorary.testing.families import pico_family_hf
from lorary.testing.pico import add_expert, pico_tokenizer, random_library, random_weights

YES = "yes"
COLUMNS = {
    "class": "opens as",
    "targets": "default targets",
    "all": "all-linear",
    "train": "trains",
    "peft": "as PEFT",
    "arrow": "Arrow",
    "compass": "compass",
    "export": "export",
    "merge": "merge",
    "metrics": "metrics",
    "mixture": "fused experts",
}
"""Cell -> what stands above it."""

ROUTERS = {"arrow": "arrow:top_k=2", "compass": "compass:n_texts=4,n_tokens=12"}
NEAR = 2e-4
"""How far apart logits, and scores in nats, may be: other sums, other roundings."""

_IDS = torch.randint(10, 250, (2, 9), generator=torch.Generator().manual_seed(3))
_EXAMPLES = (lo.Example("copy: a b", "a b", "copy"), lo.Example("last: a longer prompt than that", "x", "last"))
_OPTIONS = tuple(lo.Example("which of these is a colour?", option, "copy") for option in ("red it is", "a cat"))
_TASKS = toy_tasks(6, 2, 2)


class Subject:
    """A family's base, saved and loaded as users do, and a library of random experts on it."""

    def __init__(self, family: str, place: Path) -> None:
        self.directory, self.place = place / "base", place
        hf = pico_family_hf(family)
        hf.save_pretrained(self.directory)
        pico_tokenizer().save_pretrained(self.directory)
        self.base: BaseModel = load_base(str(self.directory), device="cpu", dtype="float32")
        self.targets = ("attention",) if self._has("attention") else ("all-linear",)
        sites = [site.name for site in self.base.target_sites(self.targets)]
        closed = closed_to_peft(self.base.hf.config.model_type, sites)
        self.open = [name for name in sites if _leaf(name) not in closed]
        self.answer_of_base = self.answer(self.base.hf)
        self.library = random_library(place / "library", self.base, ["copy", "last"], targets=self.open)

    def _has(self, target: str) -> bool:
        with contextlib.suppress(LoraryError):
            return bool(self.base.target_sites([target]))
        return False

    def answer(self, model: Any) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = model(input_ids=_IDS).logits
        return logits

    def route(self, router: str, library: Library | None = None) -> Any:
        return lo.route(self.base, library or self.library, router)


def measure(family: str) -> dict[str, str]:
    """Give the cells of a family. One that can't be loaded has a single one."""
    with tempfile.TemporaryDirectory() as place, _quiet():
        try:
            subject = Subject(family, Path(place))
        except LoraryError as error:
            return {"class": f"{error.code}: {error.message}".replace(f"base '{place}/base'", "it")}
        return {cell: _cell(CELLS[cell], subject) for cell in COLUMNS}


def _cell(run: Callable[[Subject], str], subject: Subject) -> str:
    try:
        return run(subject)
    except LoraryError as error:
        return f"{error.code}: {error.message}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


# ---- cells --------------------------------------------------------------------------------------


def _default_targets(subject: Subject) -> str:
    return _leaves(subject, "attention")


def _all_linear(subject: Subject) -> str:
    return _leaves(subject, "all-linear")


def _leaves(subject: Subject, target: str) -> str:
    return " ".join(dict.fromkeys(_leaf(site.name) for site in subject.base.target_sites([target])))


def _leaf(site: str) -> str:
    return site.rpartition(".")[2]


def _trains(subject: Subject) -> str:
    """Two private experts of the default targets in one pack, and one of all linear layers; each learns something."""
    for number, (targets, tasks) in enumerate([(subject.targets, ["copy", "last"]), (("all-linear",), ["copy"])]):
        builder = lo.Private(rank=2, steps=1, targets=targets, n_evaluations=1)
        library = lo.build(builder, _TASKS.only(tasks), subject.base, into=subject.place / f"trained{number}")
        for name in library:
            with subject.route("uniform", _lone(library, name, subject.place / f"{number}{name}")) as model:
                assert not torch.equal(subject.answer(model), subject.answer_of_base), f"{targets} learned nothing"
    return YES


def _lone(library: Library, name: str, place: Path) -> Library:
    lone = Library.create(place, base=library.base)
    lone.add(library[name].directory, name)
    return lone


def _as_peft(subject: Subject) -> str:
    """A lone expert answers as under PEFT; layers on which PEFT opens none are named."""
    lone = _lone(subject.library, "copy", subject.place / "lone")
    theirs = PeftModel.from_pretrained(type(subject.base.hf).from_pretrained(subject.directory), lone["copy"].directory)
    expected = subject.answer(theirs)
    for router in ("uniform", *ROUTERS.values()):
        with subject.route(router, lone) as model:
            _same(subject.answer(model.base.hf), expected)
    assert not torch.allclose(expected, subject.answer_of_base, atol=0.01)
    closed = closed_to_peft(
        subject.base.hf.config.model_type, [s.name for s in subject.base.target_sites(["all-linear"])]
    )
    return f"{YES}, but at {' '.join(closed)}" if closed else YES


def _routed(router: str) -> Callable[[Subject], str]:
    def run(subject: Subject) -> str:
        """The same with a cache and without one, alone and in a batch."""
        with subject.route(router) as model:
            together = subject.base.calls.hides_padding
            for ids in (_IDS,) if together else _IDS.split(1):
                one, other = (
                    model.generate(ids, use_cache=use, max_new_tokens=4, do_sample=False) for use in (True, False)
                )
                assert torch.equal(one, other), "with a cache it answers otherwise"
            both = [found.nats for found in model.log_likelihood(_EXAMPLES + _OPTIONS)]
            alone = [model.log_likelihood([example])[0].nats for example in _EXAMPLES + _OPTIONS]
            assert max(abs(a - b) for a, b in zip(both, alone, strict=True)) < 10 * NEAR, (both, alone)
            texts = model.generate_text(_EXAMPLES, max_new_tokens=3)
            assert texts == [model.generate_text([example], max_new_tokens=3)[0] for example in _EXAMPLES]
        partial = (
            sorted(subject.base.calls.partial - subject.base.slices.keys()) if router.startswith("compass") else []
        )
        return ", ".join([YES, *(f"but at {site}" for site in partial), *([] if together else ["one row at a time"])])

    return run


def _exported(subject: Subject) -> str:
    """What is exported answers as the library under the same fixed shares."""
    with lo.route(subject.base, subject.library, "uniform", mix="outputs") as model:
        expected = subject.answer(model.base.hf)
    into = subject.place / "exported"
    lo.export(subject.library, into=into / "experts" / "both", mix="outputs")
    alone = Library.create(subject.place / "of_export", base=subject.library.base)
    alone.add(into / "experts" / "both", "both")
    with subject.route("uniform", alone) as model:
        _same(subject.answer(model.base.hf), expected)
    return YES


def _merged(subject: Subject) -> str:
    """A merge of all experts is one expert that is routed."""
    merged = lo.build(lo.UniformMerge(), _TASKS, subject.base, into=subject.place / "merged", source=subject.library)
    with subject.route("uniform", merged) as model:
        assert subject.answer(model.base.hf).isfinite().all()
        assert not torch.equal(subject.answer(model.base.hf), subject.answer_of_base)
    return YES


def _scored(subject: Subject) -> str:
    with subject.route(ROUTERS["arrow"]) as model:
        for metric in (lo.Perplexity(), lo.RougeL(max_new_tokens=2)):
            scores = lo.evaluate(
                metric, model, _TASKS.only(["copy"]), into=subject.place / f"{type(metric).__name__}.jsonl"
            )
            assert scores.mean == scores.mean
    return YES


def _mixture(subject: Subject) -> str:
    """An expert on all fused experts answers as under PEFT; Arrow routes two, the same alone and in a batch."""
    base = subject.base
    if not base.slices:
        return "–"
    library = Library.create(subject.place / "mixtures", base=base.fingerprint)
    for seed, name in enumerate(("copy", "last")):
        add_expert(
            library, name, base, LoRA(rank=2), random_weights(LoRA(rank=2), list(base.slices.values()), seed=seed)
        )
    lone = _lone(library, "copy", subject.place / "lone_mixture")
    theirs = PeftModel.from_pretrained(type(base.hf).from_pretrained(subject.directory), lone["copy"].directory)
    with subject.route("uniform", lone) as model:
        _same(subject.answer(model.base.hf), subject.answer(theirs))
        assert not torch.allclose(subject.answer(model.base.hf), subject.answer_of_base, atol=0.01)
    with subject.route(ROUTERS["arrow"], library) as model:
        both = [found.nats for found in model.log_likelihood(_EXAMPLES)]
        alone = [model.log_likelihood([example])[0].nats for example in _EXAMPLES]
        assert max(abs(a - b) for a, b in zip(both, alone, strict=True)) < 10 * NEAR, (both, alone)
    return " ".join(dict.fromkeys(site.rpartition(".")[0].rpartition(".")[2] for site in base.slices))


def _same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=NEAR, rtol=NEAR)


CELLS: dict[str, Callable[[Subject], str]] = {
    "class": lambda subject: type(subject.base.hf).__name__,
    "targets": _default_targets,
    "all": _all_linear,
    "train": _trains,
    "peft": _as_peft,
    "arrow": _routed(ROUTERS["arrow"]),
    "compass": _routed(ROUTERS["compass"]),
    "export": _exported,
    "merge": _merged,
    "metrics": _scored,
    "mixture": _mixture,
}
