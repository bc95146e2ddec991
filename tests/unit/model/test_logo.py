"""Routers that decide by a pass over the prompt: what they read, and that it holds for the whole answer."""

import pytest
import torch

import lorary
from lorary.errors import RoutingError
from lorary.model.routed.route import route
from lorary.routing.contract import Context
from lorary.tasks.example import Example
from lorary.testing.pico import pico_base, random_library

SMALL = "compass:n_texts=4,n_tokens=8"
PROMPTS = ["copy: a", "reverse: what is quite a bit longer", "x"]
TWO = "logo:top_k=2"


@pytest.fixture
def library(base, tmp_path):
    return random_library(tmp_path / "lib", base, 5)


def shares_at(model, prompt, *, n=4):
    """The experts' weights at every token of a prompt and n tokens behind it, and every site: (T, L, E)."""
    return model.explain(prompt, max_new_tokens=n).weights


def test_it_holds_for_the_whole_answer_and_every_layer(base, library):
    with route(base, library, TWO) as model:
        found = [shares_at(model, prompt) for prompt in PROMPTS]
    for weights in found:
        assert torch.equal(weights, weights[:1, :1].expand_as(weights))
        assert ((weights > 0).sum(-1) == 2).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert not torch.equal(found[0][0], found[1][0])


def test_rows_of_a_batch_are_told_apart(base, library):
    examples = [Example(prompt, " b") for prompt in PROMPTS]
    with route(base, library, TWO) as model:
        together = model.log_likelihood(examples)
        alone = [model.log_likelihood([example])[0] for example in examples]
        texts = model.generate_text(examples, max_new_tokens=5)
        assert texts == [model.generate_text([example], max_new_tokens=5)[0] for example in examples]
    for one, other in zip(together, alone, strict=True):
        assert one.nats == pytest.approx(other.nats, abs=1e-4)


def test_ids_are_read_as_they_are(base, library):
    ids = torch.tensor([[70, 71, 72, 5, 9, 17, 33]])
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    with route(base, library, TWO) as model, torch.inference_mode():
        padded = model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        torch.testing.assert_close(padded[:, 3:], model(ids[:, 3:]).logits, atol=1e-4, rtol=1e-4)


def test_the_pass_before_leaves_the_model_as_it_was(base, library):
    """The mix and the evidence of a router that it lists for."""
    router = f"shortlist:of=logo,then=({SMALL}),n=2"
    with route(base, library, router, mix="factors") as model:
        whole = shares_at(model, PROMPTS[1])
        assert model.mix == "factors" and not model._attachment.slot.everybody
    assert ((whole > 0).sum(-1) <= 2).all()
    assert torch.equal((whole > 0).any(0).any(0), (whole > 0).any(1)[5])  # the list is one for the whole answer


def test_it_is_saved_edited_and_twinned(base, library, tmp_path):
    ids = torch.arange(2, 26).view(3, 8)
    with route(base, library, TWO) as model, torch.inference_mode():
        expected = model(ids).logits
        with model.twin() as twin:
            assert torch.equal(twin(ids).logits, expected)
        model.remove("e2")
        fewer = model(ids).logits
        model.add("e2")
        assert torch.equal(model(ids).logits, expected) and not torch.equal(fewer, expected)
        model.save(tmp_path / "model")
    with lorary.load(tmp_path / "model", base=base) as again, torch.inference_mode():
        assert torch.equal(again(ids).logits, expected)


def test_experts_that_are_fetched_on_demand_are_read_as_those_in_memory(base, library):
    ids = torch.arange(2, 26).view(3, 8)
    found = []
    for memory in (None, "1GiB"):
        with route(base, library, TWO, memory=memory) as model, torch.inference_mode():
            found.append(model(ids).logits)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_without_the_layer_the_last_is_listened_to(tmp_path):
    base = pico_base()
    library = random_library(tmp_path / "lib", base, 3, targets=["down_proj"])
    with route(base, library, "logo") as model:
        assert model._prompts.survey.site == "model.layers.1.mlp.down_proj"
        assert shares_at(model, "a").shape[-1] == 3


def test_an_expert_that_says_nothing_there_gets_nothing(base, tmp_path):
    library = random_library(tmp_path / "lib", base, 3)
    other = random_library(tmp_path / "other", base, ["far"], targets=["up_proj"])
    library.add(other["far"].directory, "far")
    with route(base, lorary.Library.open(library.path), "logo") as model:
        assert not shares_at(model, "a")[..., -1].any()


def test_the_base_alone_can_t_be_called_with_its_router(base, library):
    with route(base, library, TWO), pytest.raises(RoutingError, match=r"error\[E-TEXT\] logo needs the features"):
        base.hf(input_ids=torch.tensor([[5, 6]]))


def test_a_state_of_others_is_refused(base, library):
    with route(base, library, TWO) as model:
        ensemble = model._ensemble
        for key in ensemble.state:
            broken = {**ensemble.state, key: ensemble.state[key][:1]}
            with pytest.raises(RoutingError, match="E-STATE"):
                ensemble.router.survey(ensemble.sites, broken, ensemble.names)
        gate = model._attachment.parts["model.layers.0.self_attn.q_proj"][1]
        with pytest.raises(RoutingError, match="E-STATE"):
            gate(torch.zeros(1, 2, 32), Context(features=torch.ones(1, 3)))
