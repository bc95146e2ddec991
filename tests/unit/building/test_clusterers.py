"""Clusters by lot and by the base's states, the choice of k, and experts that join."""

import numpy as np
import pytest
import torch

from lorary.adapters.contract import Weights
from lorary.building.builders.per_cluster import PerCluster
from lorary.building.clustering.cluster import cluster, join, members_of, owned_tasks
from lorary.building.clustering.clusterers.embeddings import Embeddings
from lorary.building.clustering.clusterers.mbc import MBC
from lorary.building.clustering.clusterers.random_examples import RandomExamples
from lorary.building.clustering.clusterers.random_tasks import RandomTasks
from lorary.building.clustering.clusters import Clusters
from lorary.building.clustering.k_means import best_k, k_curve, k_means, numbers_to_try
from lorary.errors import AdapterError, BuildError, LoraryError
from lorary.formats.peft import open_experts, read_experts
from lorary.library.library import Library
from lorary.model.probes.task_states import TaskStates
from lorary.testing.fakes import fake_experts
from lorary.testing.pico import random_library


def points_in_groups(n_groups, n, *, noise=0.3):
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(n_groups, 20))
    rows = np.stack([centres[i % n_groups] + noise * generator.normal(size=20) for i in range(n)])
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


# ---- how many -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n_groups", [3, 5])
def test_the_curve_is_highest_at_the_true_number_of_groups(n_groups):
    similarity = points_in_groups(n_groups, 20)
    curve = k_curve(similarity, similarity, 0)
    assert [row["k"] for row in curve] == list(range(2, 11))
    assert best_k(curve) == n_groups
    assert max(curve, key=lambda row: row["stability"])["k"] == n_groups
    assert max(row["stability"] for row in curve) == 1


def test_large_numbers_are_tried_sparsely():
    assert numbers_to_try(3) == [2]
    assert numbers_to_try(9) == [2, 3, 4]
    tried = numbers_to_try(2000)
    assert tried[:19] == list(range(2, 21))
    assert tried[-1] == 1000 and len(tried) == 27


def test_mbc_chooses_k_and_keeps_the_curve():
    experts = fake_experts([f"x{i}" for i in range(8)])
    found = MBC(k="auto").cluster(experts, {name: (name,) for name in experts})
    assert len(found) == best_k(found.curve)
    with pytest.raises(BuildError) as caught:
        MBC(k="auto").cluster(fake_experts(["a", "b"]), {})
    assert str(caught.value) == "error[E-CLUSTERS] k=auto needs at least 3 experts, found 2. Give k as a number."


def test_equal_experts_do_not_disturb_k_means():
    assert len(set(k_means(np.ones((4, 3)), 2, 0))) == 1
    assert k_curve(np.ones((4, 4)), np.ones((4, 4)), 0) == [{"k": 2, "silhouette": 0.0, "stability": 1.0}]


# ---- in the space of the products ---------------------------------------------------------------


def test_products_group_experts_of_unequal_ranks_by_what_they_add():
    common = fake_experts(["p", "q"], rank=2)
    experts = {}
    for i in range(8):
        turn = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(i))).Q * (1 + i)
        extra = fake_experts({"x": 50 + i}, rank=1 + i % 3)["x"]
        experts[f"x{i}"] = {
            site: type(w)(torch.cat([turn @ w.a, 0.1 * extra[site].a]),
                          torch.cat([w.b @ torch.linalg.inv(turn), 0.1 * extra[site].b], dim=1), 3.0)
            for site, w in common["pq"[i % 2]].items()
        }  # fmt: skip
    tasks_of = {name: (name,) for name in experts}
    found = MBC(k=2, space="products").cluster(experts, tasks_of)
    assert dict(found) == {"c0": ("x0", "x2", "x4", "x6"), "c1": ("x1", "x3", "x5", "x7")}
    deltas = torch.stack([torch.cat([w.delta().flatten() for _, w in sorted(e.items())]) for e in experts.values()])
    expected = torch.nn.functional.normalize(deltas) @ torch.nn.functional.normalize(deltas).T
    np.testing.assert_allclose(found.similarity, expected.numpy(), atol=1e-5)


# ---- experts on disk ----------------------------------------------------------------------------


def test_open_experts_are_the_read_ones(toy_library):
    opened, read = open_experts(toy_library), read_experts(toy_library)
    assert list(opened) == list(read)
    for name, sites in read.items():
        assert list(opened[name]) == list(sites) and len(opened[name]) == len(sites)
        assert "nowhere" not in opened[name]
        for site, weights in sites.items():
            assert isinstance(opened[name][site], Weights)
            assert torch.equal(opened[name][site].delta(), weights.delta())


def test_broken_numbers_are_found_when_they_are_read(base, tmp_path):
    library = random_library(tmp_path / "lib", base, ["ants", "bees"])
    path = library["bees"].weights_path
    data = bytearray(path.read_bytes())
    data[-4:] = b"\x00\x00\xc0\x7f"  # NaN
    path.write_bytes(data)
    (path.parent / "expert.json").unlink()  # which promises other bytes
    experts = open_experts(Library.open(library.path))
    with pytest.raises(AdapterError, match=r"E-NONFINITE\] expert 'bees': tensor .* has 1 entries"):
        MBC(k=1).cluster(experts, {"ants": ("ants",), "bees": ("bees",)})


# ---- by lot -------------------------------------------------------------------------------------


def test_tasks_are_dealt_as_numpy_deals():
    tasks_of = {f"e{i}": (f"t{i}",) for i in range(9)}
    labels = np.random.default_rng(3).integers(0, 4, 9).tolist()
    found = RandomTasks(k=4, seed=3).cluster({}, tasks_of)
    homes = {task: name for name, tasks in found.items() for task in tasks}
    assert [[homes[f"t{i}"] == homes[f"t{j}"] for j in range(9)] for i in range(9)] == [
        [a == b for b in labels] for a in labels
    ]
    assert RandomTasks(k=4, seed=4).cluster({}, tasks_of) != found


def test_dealt_examples_go_to_one_cluster_each_and_are_trained_there(toy):
    clusters = RandomExamples(k=3, seed=1).cluster({}, {name: (name,) for name in toy})
    assert list(clusters) == ["c0", "c1", "c2"] and clusters["c1"] == tuple(sorted(toy))
    jobs = PerCluster(clusters, steps=1).plan(toy)
    trained = [e for job in jobs for e in job.train]
    assert sorted(trained, key=repr) == sorted((e for task in toy.values() for e in task.train), key=repr)
    assert min(len(job.train) for job in jobs) > len(trained) / 6
    assert clusters != Clusters(clusters.groups)
    shuffled = toy["copy"].first()
    assert clusters.part("c0", shuffled) == clusters.part("c0", toy["copy"])


# ---- by the base's states -----------------------------------------------------------------------


def test_mean_states_are_those_of_single_texts(base, toy):
    task = toy["copy"]
    found = TaskStates(base, toy).mean_state("copy", layer=-2, n_examples=3)
    states = []
    for example in task.train[:3]:
        text = example.prompt + example.completion
        ids = [*base.tokenizer(text)["input_ids"], base.tokenizer.eos_token_id]
        with torch.inference_mode():
            output = base.hf(input_ids=torch.tensor([ids]), output_hidden_states=True)
        states.append(output.hidden_states[-2][0].mean(0))
    torch.testing.assert_close(found, torch.stack(states).mean(0), atol=1e-5, rtol=1e-4)


def test_embeddings_cluster_a_library(base, toy, toy_library):
    found = cluster("embeddings:k=2,n_examples=4", toy_library, base=base, tasks=toy)
    points = np.stack(
        [TaskStates(base, toy).mean_state(n, layer=-2, n_examples=4).double().numpy() for n in sorted(toy_library)]
    )
    labels = k_means(points, 2, 42)
    assert [sorted(tasks) for tasks in found.values()] == [
        [n for n, label in zip(sorted(toy_library), labels, strict=True) if label == first]
        for first in dict.fromkeys(labels)
    ]
    assert np.asarray(found.similarity).shape == (5, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 5}, "error[E-OPTION] layer=5, but the base has 2 layers."),
        ({"task": "none"}, "error[E-TASK] unknown task 'none'."),
    ],
)
def test_states_that_are_not_there_are_refused(options, message, base, toy):
    with pytest.raises(LoraryError) as caught:
        TaskStates(base, toy).mean_state(**{"task": "copy", "layer": -1, "n_examples": 2} | options)
    assert str(caught.value).startswith(message)


def test_embeddings_need_data(toy_library):
    with pytest.raises(BuildError) as caught:
        cluster(Embeddings(k=2), toy_library)
    assert str(caught.value) == (
        "error[E-CLUSTERS] embeddings need the base and the tasks. Pass base=... and tasks=..., or --tasks DIR."
    )


# ---- joining ------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["factors", "products"])
def test_an_expert_joins_where_clustering_all_puts_it(base, tmp_path, space):
    library = random_library(tmp_path / "lib", base, ["ant", "bee", "cat"])
    clusters = cluster(MBC(k=3, space=space), library)
    library["bee"].copy_to(tmp_path / "twin")
    text = (tmp_path / "twin" / "expert.json").read_text().replace('"bee"', '"bumblebee"')
    (tmp_path / "twin" / "expert.json").write_text(text)
    library.add(tmp_path / "twin", "bumblebee")
    joined = join(clusters, library)
    home = next(name for name, tasks in clusters.items() if "bee" in tasks)
    assert joined[home] == ("bee", "bumblebee")
    assert {n: t for n, t in joined.items() if n != home} == {n: t for n, t in clusters.items() if n != home}
    whole = cluster(MBC(k=3, space=space), library)
    assert joined.names == whole.names and joined.source == library.hash
    np.testing.assert_allclose(joined.similarity, whole.similarity, atol=1e-5)
    assert members_of(joined, owned_tasks(library))[home] == ["bee", "bumblebee"]
    assert join(joined, library) == joined


def test_what_can_not_be_joined_is_refused(base, toy, tmp_path):
    library = random_library(tmp_path / "lib", base, ["copy", "swap"])
    clusters = cluster("embeddings:k=1,n_examples=1", library, base=base, tasks=toy)
    library["swap"].copy_to(tmp_path / "twin")
    library.add(tmp_path / "twin", "twin")
    with pytest.raises(BuildError) as caught:
        join(clusters, library)
    assert str(caught.value) == (
        "error[E-CLUSTERS] Embeddings can't compare one more expert with the others. Cluster the whole library again."
    )
    library = random_library(tmp_path / "other", base, ["ant", "bee", "cat"])
    with pytest.raises(BuildError) as caught:
        join(cluster("random_tasks:k=2", library), library)
    assert str(caught.value) == (
        "error[E-CLUSTERS] these clusters have no map of experts to join. Cluster the library again."
    )
    clusters = cluster("mbc:k=2", library)
    library.remove("ant")
    with pytest.raises(BuildError) as caught:
        join(clusters, Library.open(library.path))
    assert str(caught.value) == "error[E-CLUSTERS] expert 'ant' is gone from the library. Cluster it again."


def test_cluster_says_what_it_takes(toy_library):
    with pytest.raises(LoraryError, match=r"E-OPTION\] library is 'libs/private', expected a library. Open it"):
        cluster("mbc:k=2", "libs/private")
    with pytest.raises(LoraryError, match=r"E-OPTION\] clusterer is the class MBC, expected a clusterer, as MBC"):
        cluster(MBC, toy_library)
