"""A routed model that is changed or detached by one thread while another asks it, its files changed by a third."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from process import run
from world import Lost, World, require_clean

from lorary.errors import LoraryError
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel, load_base
from lorary.model.base.fingerprint import hash_tensors
from lorary.model.routed.route import route

_SECONDS = 2.0
_EXPECTED = ("E-BUSY", "E-DETACHED")


def live(world: World, random: Random, place: Path) -> str:
    """Each answer is that of the experts as they were before a change or after it, and none is in between."""
    shutil.copytree(world.start / "lib", place / "lib")
    memory = random.choice((None, "1MiB"))
    seed, is_detached, outside = random.random(), random.random() < 0.3, random.random() < 0.5
    end = run(lambda: _live(world, place, Random(seed), memory, detached=is_detached, outside=outside))
    require_clean(end, (0,), "a model that is changed while it answers")
    return end.out.strip().splitlines()[-1]


def _live(world: World, place: Path, random: Random, memory: str | None, *, detached: bool, outside: bool) -> None:
    base, library = load_base(str(world.base)), Library.open(place / "lib")
    alone = _answer(base)
    model = route(base, library, "arrow:top_k=2", memory=memory)
    allowed = {_answer(model)}
    model.remove("swap")
    allowed.add(_answer(model))
    model.add(library["swap"])
    told: list[BaseException] = []
    over = threading.Event()
    done = {"edits": 0, "busy": 0}

    def change() -> None:
        is_there = True
        while not over.is_set():
            time.sleep(random.random() * 0.01)
            try:
                model.remove("swap") if is_there else model.add(library["swap"])
            except LoraryError as error:
                if error.code != "E-BUSY":
                    raise
                done["busy"] += 1
            else:
                is_there = not is_there
                done["edits"] += 1

    def touch() -> None:
        other = Library.open(place / "lib")
        for _ in range(10):
            other.replace(world.adapters / random.choice(("poems", "songs")), "upper")
            time.sleep(0.05)
        other.remove("copy")

    threads = [_thread(do, told) for do in (change, *([touch] if outside else []))]
    n, deadline = 0, time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            found = _answer(model)
        except LoraryError as error:
            if error.code not in _EXPECTED:
                raise
        else:
            n += 1
            if found not in allowed:
                raise Lost("an answer of neither the experts before nor those after a change")
    over.set()
    for thread in threads:
        thread.join()
    if told:
        raise told[0]
    _detach(model, base, alone, concurrently=detached)
    print("asked and changed" + (", paged" if memory else "") + (", files changed" if outside else ""))


def _detach(model: Any, base: Any, alone: str, *, concurrently: bool) -> None:
    """Detach, perhaps while an answer is being made; afterwards the base says what it said before."""
    if concurrently:
        told: list[BaseException] = []
        thread = _thread(lambda: [_answer(model) for _ in range(3)], told)
        while thread.is_alive():
            try:
                model.detach()
                break
            except LoraryError as error:
                if error.code != "E-BUSY":
                    raise
        thread.join()
        if told and getattr(told[0], "code", "") not in _EXPECTED:
            raise told[0]
    model.detach()
    if _answer(base) != alone:
        raise Lost("the base is another one after its library was detached")


def _thread(do: Callable[[], object], told: list[BaseException]) -> threading.Thread:
    def work() -> None:
        try:
            do()
        except BaseException as error:
            told.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _answer(model: Any) -> str:
    """Give what a model says, to the bit: some tokens, and the numbers behind them."""
    ids = torch.arange(2, 34).view(2, 16)
    mask = torch.ones_like(ids)
    asked = model.hf if isinstance(model, BaseModel) else model
    with torch.inference_mode():
        made = asked.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0)
        logits = asked(input_ids=ids, attention_mask=mask).logits
    return f"{made.tolist()} {hash_tensors([logits])}"


KINDS = {"changed while it answers": live}
