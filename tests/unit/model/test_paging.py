"""Weights fetched on demand: the same answers under any budget, and never those of another file."""

import os
import shutil

import pytest
import torch

import lorary
from lorary.errors import LibraryError, OptionError
from lorary.hashing import hash_file
from lorary.library.adapter import expert as expert_module
from lorary.library.library import Library
from lorary.model.ensemble.paging import parse_size
from lorary.model.routed.route import route
from lorary.testing.pico import pico_base, random_library

IDS = torch.arange(2, 26).view(3, 8)
ONE = 4 * 4 * (32 + 32)
"""Bytes of one pico expert at one site: rank 4, float32."""


def logits(model):
    tasks = ["e1", "e4", "e1"] if "task" in model.router.needs else None
    with torch.inference_mode():
        return model(IDS, tasks=tasks).logits


@pytest.fixture
def library(base, tmp_path):
    return random_library(tmp_path / "lib", base, 6)


@pytest.mark.slow
@pytest.mark.parametrize("mix", ["factors", "outputs"])
@pytest.mark.parametrize("router", ["arrow:top_k=2", "arrow:top_k=6", "uniform", "oracle"])
def test_the_answer_is_that_of_resident_experts(router, mix, base, library):
    with route(base, library, router, mix=mix) as model:
        expected = logits(model)
    answers = []
    for memory in (1, 3 * ONE, "1GiB"):
        with route(base, library, router, mix=mix, memory=memory) as model:
            answers += [logits(model), logits(model)]
            generated = model.generate(IDS[:1], max_new_tokens=4, do_sample=False, tasks=["e1"])
            assert generated.shape == (1, 12)
    assert all(torch.equal(answer, answers[0]) for answer in answers), "budget and history change no bit"
    torch.testing.assert_close(answers[0], expected, atol=1e-5, rtol=1e-5)
    if router in ("uniform", "arrow:top_k=6"):
        assert torch.equal(answers[0], expected), "all experts: the arithmetic is the same"


def test_experts_of_several_ranks_and_sites(base, tmp_path):
    library = random_library(tmp_path / "lib", base, ["a", "b"], ranks=[2, 5], targets=["attention", "up_proj"])
    more = random_library(tmp_path / "more", base, ["c"], targets=["q_proj"], seed=5)
    library.add(more["c"].directory, "c")
    for router in ("arrow:top_k=1", "arrow:top_k=2", "uniform"):
        with route(base, library, router, mix="outputs") as model:
            expected = logits(model)
        with route(base, library, router, mix="outputs", memory=4 * ONE) as model:
            torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)


def test_the_budget_is_held_and_told(base, library):
    with route(base, library, "arrow:top_k=2", memory=5 * ONE) as model:
        logits(model)
        first = model.paging
        assert first.misses >= 16
        assert 0 < first.size_bytes <= first.budget_bytes == 5 * ONE
    with route(base, library, "arrow:top_k=2", memory="1MB") as model:
        logits(model)
        before = model.paging
        assert before.size_bytes == before.misses * ONE
        logits(model)
        assert (model.paging.misses, model.paging.hits) == (before.misses, before.hits + before.misses)
    with route(base, library, "arrow:top_k=2") as model:
        assert model.paging is None


def test_edits_twins_and_saved_models_page_too(base, library, tmp_path):
    spare = random_library(tmp_path / "spare", base, ["d", "e3"], seed=3)
    with route(base, library, "arrow:top_k=2", memory=3 * ONE) as model:
        model.add(spare["d"])
        model.replace(spare["e3"])
        model.remove("e0")
        found = logits(model)
        with model.twin() as twin:
            assert torch.equal(logits(twin), found)
            assert twin.paging == model.paging
        model.save(tmp_path / "saved", experts="refer")
    with lorary.load(tmp_path / "saved", base=base, memory=3 * ONE) as model:
        assert torch.equal(logits(model), found)
    with lorary.load(tmp_path / "saved", base=base) as model:
        torch.testing.assert_close(logits(model), found, atol=1e-5, rtol=1e-5)


def test_in_bfloat16(tmp_path):
    base = pico_base(dtype=torch.bfloat16)
    library = random_library(tmp_path / "lib", base, 4)
    with route(base, library, "uniform") as model:
        expected = logits(model)
    with route(base, library, "uniform", memory="1MB") as model:
        assert torch.equal(logits(model), expected)
        assert model.paging.size_bytes == model.paging.misses * ONE // 2


# ---- files --------------------------------------------------------------------------------------


def test_opening_reads_no_weights(base, library, monkeypatch):
    with route(base, library, "arrow", memory="1MB") as model:
        expected = logits(model)
    library = Library.open(library.path)
    for expert in library.values():
        # As if it had taken longer to write them: what is untouched since expert.json was written is trusted.
        provenance = expert.directory / "expert.json"
        provenance.write_bytes(provenance.read_bytes())
    monkeypatch.setattr(expert_module, "hash_open", lambda file: pytest.fail(f"read {file.name}"))
    monkeypatch.setattr("lorary.model.ensemble.paging.safe_open", lambda *_, **__: pytest.fail("read weights"))
    with route(base, library, "arrow", memory="1MB") as model:
        monkeypatch.undo()
        assert torch.equal(logits(model), expected)


def test_a_file_that_was_touched_is_read_and_judged(library):
    names = list(library)
    for name, recorded in zip(names, (expert.recorded_hash for expert in library.values()), strict=True):
        assert recorded == library[name].hash
    path = library[names[0]].weights_path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert hash_file(path) != library[names[0]].provenance.weights_sha256
    with pytest.raises(LibraryError, match=r"^error\[E-FILE\] expert 'e0': adapter_model.safetensors has changed"):
        Library.open(library.path)["e0"].recorded_hash  # noqa: B018


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_file_that_changes_under_a_model_is_never_mixed_in(change, base, library, tmp_path):
    other = random_library(tmp_path / "other", base, ["e2"], seed=9)
    with route(base, library, "uniform", memory=1) as model:
        logits(model)
        if change == "replaced":
            library.replace(other["e2"].directory, "e2")
        else:
            shutil.rmtree(library.path / "experts" / "e2")
        with pytest.raises(LibraryError) as caught:
            logits(model)
        assert str(caught.value) == (
            "error[E-FILE] expert 'e2': its file was changed or removed while it is fetched on demand. "
            "Use model.replace or model.remove, then the library's."
        )
        model.remove("e2")
        assert logits(model).isfinite().all()


@pytest.mark.parametrize("recorded", [True, False])
def test_a_file_that_was_touched_and_not_changed_goes_on(recorded, base, library, tmp_path):
    path = library["e1"].weights_path
    if not recorded:
        (library["e1"].directory / "expert.json").unlink()
        library = Library.open(library.path)
    with route(base, library, "uniform", memory=1) as model:
        expected = logits(model)
        os.link(path, tmp_path / "backup")
        assert torch.equal(logits(model), expected)
        path.chmod(0o600)
        os.utime(path)
        assert torch.equal(logits(model), expected)
        before = path.stat()
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(LibraryError, match=r"^error\[E-FILE\] expert 'e1': its file was changed"):
            logits(model)


def test_sizes_are_read():
    assert [parse_size(t) for t in ("2GiB", "1.5 MB", "7", 9, "3K", "1TiB")] == [
        2 << 30,
        1_500_000,
        7,
        9,
        3000,
        1 << 40,
    ]
    for wrong in ("much", "", "-1", 0, "2 QB", "1e9"):
        with pytest.raises(OptionError) as caught:
            parse_size(wrong)
        assert str(caught.value) == (
            f"error[E-OPTION] memory={wrong!r} is no size. Write 2GiB, 500MB or a number of bytes."
        )
