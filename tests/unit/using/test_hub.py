"""Libraries to and from a Hub on this machine, asked over HTTP by the Hub's own library."""

import json
import os
import shutil
import time

import numpy as np
import pytest
from huggingface_hub import ModelCard, constants
from huggingface_hub.utils import _http
from safetensors.numpy import load_file, save_file

import lorary as lo
from fake_hub import SHA, serving
from lorary.cli.main import main
from lorary.errors import LoraryError
from lorary.library import sync
from lorary.library.hub import retries
from lorary.library.library import Library
from lorary.using.kept import OLD_S, collect_kept

D = 6
PLACE = "hf://me/lib"
SECRET = "hf_" + "x" * 30
pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"
)  # the Hub's library, of its own client


@pytest.fixture
def hub(tmp_path, monkeypatch):
    (tmp_path / "remote").mkdir()
    with serving(tmp_path / "remote") as server:
        for name, value in {**server.constants(), "HF_HUB_DISABLE_XET": True}.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", SECRET)
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
        monkeypatch.setattr(retries, "PAUSES_S", (0.0, 0.0))
        fetch = sync.snapshot_download
        monkeypatch.setattr(sync, "snapshot_download", lambda *a, **o: fetch(*a, cache_dir=tmp_path / "cache", **o))
        yield server


def adapter(directory, seed=0, **config):
    directory.mkdir(parents=True)
    random = np.random.default_rng(seed)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    arrays = {name.format(x): random.normal(size=s).astype("f4") for x, s in {"A": (2, D), "B": (D, 2)}.items()}
    save_file(arrays, directory / "adapter_model.safetensors")
    known = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps({**known, "base_model_name_or_path": "b/ase", **config}))
    return directory


@pytest.fixture
def library(tmp_path):
    library = Library.create(tmp_path / "lib")
    for seed, name in enumerate(("law", "poems")):
        made = lo.Provenance(tasks=(name,), licence="mit", metrics={"loss": 1.5})
        library.add(adapter(tmp_path / "given" / name, seed), name, provenance=made)
    return library


def remote(hub):
    return sorted(p.relative_to(hub.repos["me/lib"]).as_posix() for p in hub.repos["me/lib"].rglob("*") if p.is_file())


PARTS = ("adapter_config.json", "adapter_model.safetensors", "expert.json")
FILES = [
    "README.md",
    *(f"experts/{e}/{f}" for e in ("law", "poems") for f in PARTS),
    "library.json",
]  # fmt: skip


def test_push_wipe_pull_is_the_same(hub, library, tmp_path):
    (library.path / "learned").mkdir()
    (library.path / "learned" / "poly-1.safetensors").write_bytes(b"x")
    (library.path / "experts" / "law" / "metrics.jsonl").write_text("{}\n")
    heard = []
    done = lo.push(library, PLACE, tell=heard.append)
    assert remote(hub) == FILES == [name for name, _ in done.files] == list(done.sent)
    assert done.revision == hub.shas["me/lib"] and heard == [
        "learned/ stays here, and with it routers that need it: 'poly-1.safetensors'"
    ]
    before = library.hash
    shutil.rmtree(library.path)
    pulled = lo.pull(PLACE, library.path)
    assert pulled.hash == before and list(pulled) == ["law", "poems"]
    assert pulled.source == f"{PLACE}@{done.revision}" == Library.open(library.path).source
    assert pulled["law"].provenance.tasks == ("law",)
    pulled.remove("law")
    assert Library.open(library.path).source == f"{PLACE}@{done.revision}"


@pytest.mark.slow
def test_what_is_there_is_not_sent_again_and_what_left_is_deleted_only_if_asked(hub, library, tmp_path):
    first = lo.push(library, PLACE)
    hub.asked.clear()
    again = lo.push(library, PLACE)
    assert (again.revision, again.sent) == (first.revision, ()) and not any("commit" in path for _, path in hub.asked)
    library.remove("law")
    library.replace(adapter(tmp_path / "other", 7), "poems")
    heard = []
    kept = lo.push(library, PLACE, tell=heard.append)
    assert "1 experts on the Hub aren't in the library, and stay: 'law'." in heard[0]
    assert kept.gone == () and len(remote(hub)) == len(FILES)
    pruned = lo.push(library, PLACE, prune=True)
    assert pruned.gone == ("law",) and not any("law" in name for name in remote(hub))
    assert lo.pull(PLACE, tmp_path / "here").hash == library.hash


def test_an_interrupted_push_shows_nothing_and_is_finished_by_the_next(hub, library, tmp_path):
    hub.plan = lambda method, path: "reset" if "/commit/" in path else None
    with pytest.raises(LoraryError, match=r"^error\[E-HUB\] hf://me/lib: the Hub can't be reached"):
        lo.push(library, PLACE)
    assert remote(hub) == [] and len(hub.stored) == 2
    hub.plan, before = (lambda method, path: None), len(hub.asked)
    lo.push(library, PLACE)
    assert not [path for method, path in hub.asked[before:] if method == "PUT"], "the weights were there"
    assert lo.pull(PLACE, tmp_path / "here").hash == library.hash


@pytest.mark.parametrize("fault", ["429", "503", "reset"])
def test_weights_whose_upload_fails_once_are_sent_again(fault, hub, library, tmp_path):
    left = [1]

    def plan(method, path):
        left[0] -= method == "PUT"
        return fault if method == "PUT" and left[0] == 0 else None

    hub.plan = plan
    lo.push(library, PLACE)
    assert lo.pull(PLACE, tmp_path / "here").hash == library.hash


def test_another_who_pushed_meanwhile_is_not_run_over(hub, library):
    def plan(method, path):
        if "/preupload/" in path:
            hub.shas["me/lib"] = "f" * 40

    hub.plan = plan
    with pytest.raises(LoraryError, match=r"answered 412.*Somebody else changed it meanwhile"):
        lo.push(library, PLACE)


def test_a_folder_of_a_new_private_repository(hub, library, tmp_path):
    lo.push(library, "hf://me/more/libs/one", private=True)
    assert (hub.made[-1]["name"], hub.made[-1]["visibility"]) == ("more", "private")
    assert lo.pull("hf://me/more/libs/one", tmp_path / "here").hash == library.hash


def test_a_dry_run_asks_nobody(hub, library):
    planned = lo.push(library, PLACE, dry_run=True)
    assert hub.asked == [] and planned.revision == ""
    done = lo.push(library, PLACE)
    assert (planned.files, planned.card) == (done.files, done.card)
    assert (hub.repos["me/lib"] / "README.md").read_text() == planned.card


def scores_of(library_hash, name="run"):
    header = {
        "format": 1, "name": name, "metric": "rouge_l:max_new_tokens=8", "options": {}, "unit": "Rouge-L",
        "higher_is_better": True, "model": {"library": library_hash, "router": "compass"},
        "tasks": {t: {"n_examples": 1, "hash": "h"} for t in ("law", "poems")},
    }  # fmt: skip
    return lo.Scores(header, (lo.Outcome("law", 0, 40.0, {}), lo.Outcome("poems", 0, 60.0, {})))


def test_the_card_says_base_licence_and_results(hub, library):
    card = ModelCard(lo.push(library, PLACE, scores=[scores_of(library.hash)]).card)
    data = card.data
    assert (data.base_model, data.license, data.library_name, data.tags) == (
        "b/ase", "mit", "peft", ["lora", "lorary", "lora-library"],
    )  # fmt: skip
    (index,) = data.to_dict()["model-index"]
    told = {one["dataset"]["name"]: one["metrics"][0] for one in index["results"]}
    assert {name: one["value"] for name, one in told.items()} == {"law": 40, "poems": 60, "mean over all tasks": 50}
    assert told["law"]["type"] == "rouge" and "router compass" in told["law"]["name"]
    assert "| poems | poems |" in card.text
    with pytest.raises(LoraryError, match=r"^error\[E-OPTION\] the scores 'run' are of a library with other experts"):
        lo.push(library, PLACE, scores=[scores_of("another")])


def test_several_licences_are_not_one(hub, library, tmp_path):
    library.add(adapter(tmp_path / "x", 5), "x", provenance=lo.Provenance(licence="apache-2.0"))
    data = ModelCard(lo.push(library, PLACE, dry_run=True).card).data
    assert (data.license, data.license_name) == ("other", "see-the-table-of-experts")


def test_somebody_s_own_card_stays_here_and_there(hub, library):
    (hub.repos["me/lib"] / "README.md").write_text("---\nlicense: gpl\n---\nMine, there.\n")
    done = lo.push(library, PLACE)
    assert "Mine, there." in done.card and ModelCard(done.card).data.license == "gpl"
    library.layout.card.write_text("Mine, here.\n")
    assert lo.push(library, PLACE).card.endswith("Mine, here.\n")


def test_the_names_that_users_know(hub, library, tmp_path):
    done = library.push_to_hub("me/lib", commit_message="mine")
    opened = Library.from_pretrained("me/lib")
    assert opened.hash == library.hash and opened.source == f"{PLACE}@{done.revision}"
    asked = len(hub.asked)
    assert Library.from_pretrained("me/lib", revision=done.revision).path == opened.path
    assert len(hub.asked) == asked + 1, "which commit it is, and no more"
    copy = Library.from_pretrained(opened.save_pretrained(tmp_path / "copy"))
    assert copy.hash == library.hash and copy.path == tmp_path / "copy" and copy.source == ""
    copy.remove("law")
    opened.remove("law")
    with pytest.raises(LoraryError, match=r"^error\[E-LIBRARY\] lorary's copy of hf://me/lib, .*, was changed"):
        Library.from_pretrained("me/lib")
    with pytest.raises(LoraryError, match="E-LIBRARY"):
        Library.from_pretrained("./nowhere")
    with pytest.raises(LoraryError, match="E-EXISTS"):
        copy.save_pretrained(tmp_path / "copy")


def test_copies_that_nobody_opened_for_long_are_collected_but_changed_ones(hub, library, tmp_path, monkeypatch):
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "kept"))
    library.push_to_hub("me/lib")
    opened = Library.from_pretrained("me/lib")
    place = opened.path
    assert collect_kept() == []
    long_ago = time.time() - OLD_S - 60
    os.utime(place / ".pulled", (long_ago, long_ago))
    Library.from_pretrained("me/lib")  # which is news
    assert collect_kept() == []
    os.utime(place / ".pulled", (long_ago, long_ago))
    assert collect_kept() == [f"removed the copy of {opened.source}"] and not place.exists()
    changed = Library.from_pretrained("me/lib")
    changed.remove("law")
    assert collect_kept(0.0) == [f"kept {str(place)!r}: it was changed since it came from the Hub"]
    assert "law" not in Library.open(place)


def test_where_a_library_and_its_experts_are_from_is_shown(hub, library, tmp_path, capsys):
    done = library.push_to_hub("me/lib")
    lo.pull(PLACE, tmp_path / "pulled")
    lo.add(tmp_path / "more", f"{PLACE}/experts/law", base=None)
    for command, told in (
        ((tmp_path / "pulled",), f"source: {PLACE}@{done.revision}"),
        ((tmp_path / "more", "--sources"), f"{PLACE}/experts/law@{done.revision}"),
    ):
        with pytest.raises(SystemExit):
            main(["show", *map(str, command)])
        assert told in capsys.readouterr().out


# ---- what is private ----------------------------------------------------------------------------


def everything_sent(hub):
    return b"".join(p.read_bytes() for p in hub.repos["me/lib"].rglob("*") if p.is_file())


def test_paths_and_secrets_stay(hub, tmp_path):
    library = Library.create(tmp_path / "lib", base={"name": "/home/me/base", "hidden_size": 6})
    made = lo.Provenance(
        tasks=("law", "/home/me/tasks/law.jsonl"),
        builder={"name": "private", "options": {"data": "/home/me/data", "rank": 2, "as": SECRET}},
        extra={"source": "https://bob:pw@git.example/x", "from": {"more": ["C:\\Users\\me", "fine"]}},
    )
    config = {"base_model_name_or_path": "/home/me/base", "output_dir": "/home/me/out"}
    library.add(adapter(tmp_path / "given", **config), "law", provenance=made)
    heard = []
    lo.push(library, PLACE, tell=heard.append)
    sent = everything_sent(hub)
    for secret in (b"/home/me/", b"Users", b"bob:", SECRET.encode(), str(tmp_path).encode()):
        assert secret not in sent
    told = json.loads((hub.repos["me/lib"] / "experts/law/expert.json").read_text())
    assert told["builder"] == {"name": "private", "options": {"rank": 2}} and told["from"] == {"more": ["fine"]}
    assert heard == [
        "law/adapter_config.json: left out, for it is private: output_dir",
        "law/expert.json: left out, for it is private: builder.options.as, builder.options.data, from.more.0, "
        "source, tasks.1",
    ]
    assert lo.pull(PLACE, tmp_path / "here").hash == library.hash


@pytest.mark.parametrize("where", ["template", "metadata", "card"])
def test_a_secret_where_it_can_t_be_left_out_stops_the_push(where, hub, library, tmp_path):
    if where == "card":
        library.layout.card.write_text(f"My token is {SECRET}")
    else:
        given = adapter(tmp_path / "bad", 3)
        if where == "template":
            (given / "chat_template.jinja").write_text(f"{{# {SECRET} #}}{{{{ messages }}}}")
        else:
            path = given / "adapter_model.safetensors"
            save_file(load_file(path), path, metadata={"format": "pt", "by": SECRET})
        library.add(given, "bad")
    with pytest.raises(LoraryError, match=r"^error\[E-PRIVATE\]") as caught:
        lo.push(library, PLACE)
    assert SECRET not in str(caught.value) and remote(hub) == []


# ---- what a stranger's repository may do --------------------------------------------------------


def listing(hub, name, size):
    hub.listings["me/lib"] = [{"rfilename": name, "size": size, "blobId": "0" * 40}]


@pytest.mark.parametrize("name", ["../../evil.json", "experts/../../adapter_config.json", "/etc/adapter_config.json"])
def test_a_path_that_climbs_is_refused_before_anything_is_fetched(name, hub, tmp_path):
    listing(hub, name, 1)
    with pytest.raises(LoraryError, match=r"^error\[E-HUB\] hf://me/lib names .*, a file outside of it"):
        lo.pull(PLACE, tmp_path / "here")
    assert not [path for _, path in hub.asked if "/resolve/" in path]


@pytest.mark.parametrize(
    ("name", "size", "code"),
    [
        ("experts/a/adapter_config.json", 10**9, "E-LIMIT"),
        ("experts/a/adapter_model.safetensors", 10**17, "E-DISK"),
        ("experts/a/adapter_model.bin", 100, "E-PICKLE"),
    ],
)
def test_what_is_too_large_or_could_run_code_is_refused_before_anything_is_fetched(name, size, code, hub, tmp_path):
    listing(hub, name, size)
    with pytest.raises(LoraryError) as caught:
        lo.pull(PLACE, tmp_path / "here")
    assert caught.value.code == code and not [path for _, path in hub.asked if "/resolve/" in path]


def test_only_wanted_files_are_fetched(hub, library, tmp_path):
    lo.push(library, PLACE)
    for name in ("model.safetensors", "evil.py", "experts/law/optimizer.pt", "training_args.bin"):
        (hub.repos["me/lib"] / name).write_bytes(b"x" * 100)
    lo.pull(PLACE, tmp_path / "here")
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == ["README.md", "experts", "library.json"]


def test_a_library_with_a_bad_expert_does_not_arrive(hub, library, tmp_path):
    lo.push(library, PLACE)
    weights = hub.repos["me/lib"] / "experts/law/adapter_model.safetensors"
    save_file({name: array * np.nan for name, array in load_file(weights).items()}, weights)
    with pytest.raises(LoraryError, match=r"E-NONFINITE"):
        lo.pull(PLACE, tmp_path / "here")
    assert not (tmp_path / "here").exists()
    (hub.repos["me/lib"] / "experts/law/adapter_config.json").write_text("{")
    hub.shas["me/lib"] = "1" * 40
    with pytest.raises(LoraryError, match=r"^error\[E-LIBRARY\] hf://me/lib: 1 of 2 experts are refused: .*E-CONFIG"):
        lo.pull(PLACE, tmp_path / "here")


@pytest.mark.parametrize("place", ["lib", "hf://lib", "mttl://me/lib", "hf://me/lib@" + "0" * 40, 3])
def test_what_is_no_place_to_push_to(place, hub, library):
    with pytest.raises(LoraryError, match=r"E-HUB|E-OPTION"):
        lo.push(library, place)


def test_an_empty_library_and_a_lone_adapter(hub, tmp_path):
    with pytest.raises(LoraryError, match="E-EMPTY"):
        lo.push(Library.create(tmp_path / "empty"), PLACE)
    hub.repos["me/lib"].rmdir()
    adapter(hub.repos["me/lib"])
    with pytest.raises(LoraryError, match=r"E-LIBRARY\] hf://me/lib holds no library.*lorary add LIBRARY hf://me/lib"):
        lo.pull(PLACE, tmp_path / "here")


# ---- collections --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_collection_s_adapters_are_added_and_what_is_none_says_why(hub, tmp_path):
    for seed, repo in enumerate(("ann/law", "bob/law", "bob/poems.v1")):
        hub.repos[repo] = adapter(tmp_path / "repos" / str(seed), seed)
    hub.repos["bob/other"] = adapter(tmp_path / "repos" / "other", 9, base_model_name_or_path="another/base")
    hub.repos["bob/model"] = tmp_path / "repos" / "model"
    hub.repos["bob/model"].mkdir()
    (hub.repos["bob/model"] / "model.safetensors").write_bytes(b"x")
    kinds = [("model", repo) for repo in hub.repos if repo != "me/lib"]
    hub.collections["me/laws-1a2b"] = [*kinds, ("dataset", "x/y"), ("model", "bob/gone"), ("model", "ann/law")]
    heard = []
    done = lo.add(tmp_path / "lib", "hf://collections/me/laws-1a2b", tell=heard.append)
    assert [one.expert for one in done.added] == ["ann-law", "bob-law", "poems-v1"]
    told = {one.source: one.error.code for one in done.refused}
    assert told == {"hf://bob/other": "E-BASE", "hf://bob/model": "E-HUB", "hf://bob/gone": "E-HUB"}
    assert "hf://collections/me/laws-1a2b: passed over, for they are no models: 1" in heard
    made = Library.open(tmp_path / "lib")["bob-law"].provenance.extra
    assert made == {"source": "hf://bob/law", "revision": SHA}
    again = lo.add(tmp_path / "lib", "hf://collections/me/laws-1a2b")
    assert again.kept == ("ann-law", "bob-law", "poems-v1") and not again.added
    assert not any(path.endswith("/model.safetensors") for _, path in hub.asked)


@pytest.mark.parametrize("slug", ["", "me", "me/a/b", "me/../b"])
def test_what_is_no_collection(slug, hub, tmp_path):
    with pytest.raises(LoraryError, match=r"^error\[E-HUB\] .*collections/.* can't be read"):
        lo.add(tmp_path / "lib", f"hf://collections/{slug}")
