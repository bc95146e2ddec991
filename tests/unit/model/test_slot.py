"""A call within a call, a call that is interrupted, a change during a call."""

import threading

import pytest
import torch
from transformers import LogitsProcessorList

from lorary.errors import RoutingError
from lorary.model.routed.route import route
from lorary.tasks.example import Example

IDS = torch.arange(2, 22).view(2, 10)
OPTIONS = {"max_new_tokens": 6, "do_sample": False}


def asking(action):
    """Options of a generation in which `action` is done at every token."""

    def act(ids, scores):
        action(ids)
        return scores

    return {**OPTIONS, "logits_processor": LogitsProcessorList([act])}


def interrupted(call, hf):
    def stop(*_):
        raise KeyboardInterrupt

    hook = hf.model.layers[1].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        call()
    hook.remove()


@pytest.mark.parametrize("ask", [
    lambda model: model(IDS[:1], tasks=["join"]),
    lambda model: model(torch.cat([IDS, IDS]), tasks=["join"] * 4),
    lambda model: model.choices([Example("one two", "", "join")]),
    lambda model: model.log_likelihood([Example("one two", "three", "join")]),
])  # fmt: skip
def test_a_call_within_a_generation_leaves_its_context_alone(ask, base, toy_library):
    with route(base, toy_library, "oracle") as model, torch.inference_mode():
        tasks = ["copy", "last"]
        expected = model.generate(IDS, tasks=tasks, **OPTIONS)
        assert not torch.equal(expected, model.generate(IDS, tasks=["join", "join"], **OPTIONS))
        assert torch.equal(model.generate(IDS, tasks=tasks, **asking(lambda _: ask(model))), expected)


@pytest.mark.parametrize("ask", [
    lambda model: model(IDS),
    lambda model: model.base.hf(input_ids=IDS),
    lambda model: model.generate(IDS, **OPTIONS),
])  # fmt: skip
def test_an_interrupted_call_leaves_the_model_free(ask, base, toy_library):
    with route(base, toy_library, "arrow") as model, torch.inference_mode():
        expected, found = model(IDS).logits, []
        for follow in (
            lambda: found.append(model(IDS).logits),
            lambda: found.append(base.hf(input_ids=IDS).logits),
            lambda: model.set_mix("factors"),
        ):
            interrupted(lambda: ask(model), base.hf)
            follow()
        interrupted(lambda: ask(model), base.hf)
        with torch.inference_mode(False):
            thread = threading.Thread(target=lambda: found.append(model(IDS).logits.detach()))
        thread.start()
        thread.join()
        assert [torch.equal(f, expected) for f in found] == [True, True, True]


def test_a_thread_in_a_call_of_the_base_is_not_taken_for_interrupted(base, toy_library):
    with route(base, toy_library, "arrow") as model, torch.inference_mode():
        inside, seen, caught = threading.Event(), threading.Event(), []

        def wait(*_):
            inside.set()
            seen.wait(120)

        hook = base.hf.model.layers[1].register_forward_pre_hook(wait)
        thread = threading.Thread(target=lambda: base.hf(input_ids=IDS))
        thread.start()
        inside.wait(120)
        for change in (model.detach, lambda: model.set_mix("outputs"), lambda: model(IDS)):
            with pytest.raises(RoutingError) as error:
                change()
            caught.append(error.value.code)
        seen.set()
        thread.join()
        hook.remove()
    assert caught == ["E-BUSY"] * 3


def test_it_is_not_detached_during_a_generation(base, toy_library):
    model = route(base, toy_library, "arrow")
    expected = model.generate(IDS, **OPTIONS)
    caught = []

    def here_and_elsewhere(ids):
        thread = threading.Thread(target=refused)
        if ids.shape[1] % 2:
            refused()
        else:
            thread.start()
            thread.join()

    def refused():
        try:
            model.detach()
        except RoutingError as error:
            caught.append(str(error))

    assert torch.equal(model.generate(IDS, **asking(here_and_elsewhere)), expected)
    assert set(caught) == {
        "error[E-BUSY] this routed model is in a call of its own. Change it when that has ended.",
        "error[E-BUSY] this routed model is busy in another thread. Give each thread a model of its own.",
    }
    assert len(caught) == OPTIONS["max_new_tokens"]
    model.detach()


def test_the_number_of_tasks_is_that_of_the_rows(base, toy_library):
    with route(base, toy_library, "oracle") as model:
        for tasks in (["copy"], ["copy"] * 3, []):
            for ask in (model, model.generate):
                with pytest.raises(RoutingError) as caught:
                    ask(IDS, tasks=tasks)
                assert str(caught.value) == f"error[E-ROWS] {len(tasks)} tasks for 2 rows. Name the task of each row."
        with pytest.raises(RoutingError) as caught:
            model.generate(IDS, tasks=["copy", "last"], **asking(lambda _: base.hf(input_ids=IDS[:1])))
        assert caught.value.code == "E-ROWS"
        assert model.generate(IDS, tasks=["copy", "last"], num_beams=3, **OPTIONS).shape == (2, 16)
