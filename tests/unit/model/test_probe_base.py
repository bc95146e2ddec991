"""What a router may ask about the base: what it writes, and what its sites are given when it reads."""

import shutil

import pytest
import torch

from lorary.errors import ModelError
from lorary.library.library import Library
from lorary.model.probes.probe import DataProbe
from lorary.model.routed.route import route
from lorary.tasks.task import Tasks


def probe_of(base):
    return DataProbe(base, {}, base.sites, {}, Tasks([]))


def test_the_base_writes_the_same_for_the_same_seed(base):
    before = torch.random.get_rng_state()
    one, again, other = (
        probe_of(base).sample_texts(n_texts=3, n_tokens=5, opening="none", seed=seed) for seed in (1, 1, 2)
    )
    assert one.shape == (3, 5)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_user_s_turn_opens_where_the_template_says(base, monkeypatch):
    monkeypatch.setattr(
        base.tokenizer, "chat_template", "{% for m in messages %}<{{ m.role }}> {{ m.content }}{% endfor %}"
    )
    opened = probe_of(base)._opening("user")
    assert base.tokenizer.decode(opened) == "<user> "
    assert probe_of(base)._opening("none") == [base.tokenizer.eos_token_id]  # it has no start token
    for opens_with_nothing in ("{% for m in messages %}{{ m.content }}{% endfor %}", None):
        monkeypatch.setattr(base.tokenizer, "chat_template", opens_with_nothing)
        assert probe_of(base)._opening("user") == probe_of(base)._opening("none")
    monkeypatch.setattr(base.tokenizer, "chat_template", "{% if %}")
    with pytest.raises(ModelError, match=r"^error\[E-CHAT\] the chat template of this base can't render turns user: "):
        probe_of(base)._opening("user")


def test_a_compass_that_needs_no_turns_needs_no_chat_template(base, monkeypatch):
    monkeypatch.setattr(base.tokenizer, "chat_template", "{% if %}")
    assert probe_of(base)._opening("none") == [base.tokenizer.eos_token_id]


def test_it_hears_every_site_s_inputs_and_leaves_no_hook(base):
    texts = torch.randint(5, 60, (20, 4), generator=torch.Generator().manual_seed(0))
    found = probe_of(base).over_inputs(texts, list(base.sites), lambda site, h: h[..., :2])
    assert list(found) == list(base.sites)
    first = next(iter(base.sites))
    seen = []
    hook = base.hf.get_submodule(first).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.inference_mode():
        base.hf(texts)
    hook.remove()
    torch.testing.assert_close(found[first], seen[0][..., :2])
    assert not any(base.hf.get_submodule(site)._forward_pre_hooks for site in base.sites)


def test_a_compass_is_fitted_once_for_all_its_ablations(base, toy_library, tmp_path, monkeypatch):
    shutil.copytree(toy_library.path, tmp_path / "lib")
    library = Library.open(tmp_path / "lib")
    asked = []
    sample = DataProbe.sample_texts
    monkeypatch.setattr(DataProbe, "sample_texts", lambda *a, **o: asked.append(o) or sample(*a, **o))
    for spec in ("compass:n_texts=2,n_tokens=4", "compass:n_texts=2,n_tokens=4,up=0", "compass:n_texts=2,n_tokens=5"):
        route(base, library, spec).detach()
    assert [o["n_tokens"] for o in asked] == [4, 5]


def test_a_compass_is_edited_live(base, toy_library, tmp_path):
    """An expert that went and came again leaves the model what it was, to the bit; the base reads without experts."""
    shutil.copytree(toy_library.path, tmp_path / "lib")
    library = Library.open(tmp_path / "lib")
    ids = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    with route(base, library, "compass:n_texts=2,n_tokens=4") as model, torch.inference_mode():
        before = model(ids).logits
        name = model.names[2]
        model.remove(name)
        assert not torch.equal(model(ids).logits, before)
        model.add(name)
        assert torch.equal(model(ids).logits, before)
