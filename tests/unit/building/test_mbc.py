"""Model-based clustering against what its docstring says, written with full matrices."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.cluster import KMeans

from lorary.adapters.contract import Weights
from lorary.building.clustering.cluster import cluster
from lorary.building.clustering.clusterers.mbc import MBC, _thresholds, cosine_map, gram
from lorary.errors import AdapterError, BuildError, LibraryError, OptionError
from lorary.formats.peft import as_vectors, open_experts, read_experts
from lorary.library.library import Library
from lorary.testing.fakes import fake_experts
from lorary.testing.pico import random_library

NAMES = [f"x{i:02}" for i in range(14)]


def related(n_groups=4):
    """Make experts that fall in groups: a common part and a smaller part of their own."""
    common, own = fake_experts([f"c{i}" for i in range(n_groups)]), fake_experts(NAMES, rank=3)
    parts = {name: common[f"c{i % n_groups}"] for i, name in enumerate(NAMES)}
    return {
        name: {s: Weights(w.a + 0.5 * own[name][s].a, w.b + 0.5 * own[name][s].b, w.scale) for s, w in sites.items()}
        for name, sites in parts.items()
    }


def naive_similarity(experts, sparsity, components):
    rows = []
    for name in sorted(experts):
        parts = [t.flatten() for _, w in sorted(experts[name].items()) for t in (w.a, w.b)]
        row = torch.cat(parts).double().numpy()
        n_zero = int(np.ceil(sparsity * (len(row) - 1)))
        order = np.argsort(np.abs(row))
        row[order[:n_zero]] = 0
        rows.append(row)
    u, values, _ = np.linalg.svd(np.stack(rows), full_matrices=False)
    scaled = (u * values)[:, :components]
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return unit @ unit.T


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("components", [2, 5, 64])
def test_the_similarity_is_that_of_a_full_svd(sparsity, components):
    found = cosine_map(gram([e for _, e in sorted(related().items())], sparsity, block_bytes=64), components)
    np.testing.assert_allclose(found, naive_similarity(related(), sparsity, components), atol=1e-5)


@pytest.mark.parametrize("sparsity", [0.1, 0.25, 0.5, 0.8, 0.99])
def test_the_threshold_is_a_quantile(sparsity):
    expert = fake_experts(["x"])["x"]
    parts = [t.flatten() for _, w in sorted(expert.items()) for t in (w.a, w.b)]
    values = torch.cat(parts).abs()
    expected = pytest.approx(float(torch.quantile(values, sparsity)), rel=1e-6)
    assert _thresholds([parts, parts], sparsity) == [expected, expected]


def test_clusters_are_k_means_on_the_similarity():
    experts = related()
    found = MBC(k=4, components=5, seed=7).cluster(experts, {name: (f"t-{name}",) for name in NAMES})
    means = KMeans(4, init="k-means++", n_init=10, random_state=7).fit(naive_similarity(experts, 0.5, 5))
    groups = {}
    for name, label in zip(NAMES, means.labels_.tolist(), strict=True):
        groups.setdefault(label, []).append(f"t-{name}")
    assert [list(tasks) for tasks in found.values()] == list(groups.values())
    assert [list(tasks) for tasks in found.values()] == [[f"t-{n}" for n in NAMES[i::4]] for i in range(4)]
    assert list(found) == ["c0", "c1", "c2", "c3"]
    assert found.names == tuple(NAMES)
    assert found.method == {
        "name": "mbc", "k": 4, "sparsity": 0.5, "components": 5, "space": "factors", "seed": 7,
    }  # fmt: skip
    np.testing.assert_allclose(found.similarity, naive_similarity(experts, 0.5, 5), atol=1e-5)


def test_tasks_of_one_expert_stay_together():
    found = MBC(k=2).cluster(fake_experts(["a", "b", "c"]), {"a": ("t1", "t2"), "b": ("t3",), "c": ("t4", "t5")})
    assert sorted(task for tasks in found.values() for task in tasks) == ["t1", "t2", "t3", "t4", "t5"]
    assert any({"t1", "t2"} <= set(tasks) for tasks in found.values())


def test_more_clusters_than_experts_are_refused():
    with pytest.raises(BuildError) as caught:
        MBC(k=4).cluster(fake_experts(["a", "b", "c"]), {})
    assert str(caught.value) == "error[E-CLUSTERS] k=4, but there are 3 experts. Lower k."


def test_experts_that_can_t_be_compared_are_refused():
    experts = fake_experts(["a", "b"]) | fake_experts({"c": 5}, rank=4)
    with pytest.raises(BuildError) as caught:
        MBC(k=2).cluster(experts, {})
    assert str(caught.value) == (
        "error[E-CLUSTERS] mbc: experts differ in shape or are missing at 'layers.0.q'. "
        'Build them alike, or use space="products".'
    )
    missing = fake_experts(["a", "b"])
    del missing["a"]["layers.1.q"]
    with pytest.raises(BuildError, match=r"or are missing at 'layers\.1\.q'"):
        MBC(k=2).cluster(missing, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "error[E-OPTION] mbc: k=0, expected more than 0."),
        ({"components": -1}, "error[E-OPTION] mbc: components=-1, expected more than 0."),
        ({"k": 2.5}, "error[E-OPTION] mbc: k=2.5, expected a whole number or auto."),
        ({"seed": -1}, "error[E-OPTION] mbc: seed=-1, expected a whole number from 0 to 4294967295."),
        ({"seed": 2**33}, "error[E-OPTION] mbc: seed=8589934592, expected a whole number from 0 to 4294967295."),
        ({"space": "zz"}, "error[E-OPTION] mbc: space='zz', expected factors or products."),
        ({"sparsity": 1.0}, "error[E-OPTION] mbc: sparsity=1.0, expected a share from 0 to below 1."),
    ],
)
def test_options_without_meaning_are_refused(options, message):
    with pytest.raises((OptionError, BuildError)) as caught:
        MBC(**options)
    assert str(caught.value) == message


def test_a_library_is_clustered_by_the_tasks_of_its_experts(base, tmp_path):
    library = random_library(tmp_path / "lib", base, ["ants", "bees", "cats"])
    found = cluster("mbc:k=2", library)
    assert sorted(task for tasks in found.values() for task in tasks) == ["ants", "bees", "cats"]
    assert found.source == library.hash
    assert found == cluster(MBC(k=2), Library.open(library.path))


def test_an_expert_without_tasks_can_t_be_clustered(base, tmp_path):
    library = random_library(tmp_path / "lib", base, ["ants", "bees"])
    source = tmp_path / "alone"
    library["ants"].copy_to(source)
    (source / "expert.json").unlink()
    library.add(source, "dogs")
    with pytest.raises(BuildError) as caught:
        cluster("mbc:k=2", library)
    assert str(caught.value) == (
        "error[E-CLUSTERS] expert 'dogs' names no task in its expert.json. Name its tasks: "
        f"`lorary add {library.path} {library.path}/experts/dogs --replace --task NAME`."
    )


def reopened(library, change):
    """Open a library anew after the weights of its second expert were changed."""
    path = library["e1"].weights_path
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    (path.parent / "expert.json").unlink()  # which promises other bytes
    library = Library.open(library.path)
    return library, list(open_experts(library).values())


@pytest.mark.parametrize("is_odd", [False, True])
def test_files_are_compared_whole_or_tensor_by_tensor(base, tmp_path, is_odd):
    """The same inner products, whether all files are laid out alike or one isn't."""
    library = random_library(tmp_path / "lib", base, 3, ranks=2)
    library, opened = reopened(library, lambda tensors: {k: t.half() if is_odd else t for k, t in tensors.items()})
    assert (as_vectors(opened) is None) == is_odd
    for sparsity in (0.0, 0.5):
        whole, apart = (gram(some, sparsity) for some in (opened, list(read_experts(library).values())))
        np.testing.assert_allclose(whole, apart, rtol=1e-4, atol=1e-4 * np.abs(apart).max())


def test_an_expert_that_another_process_replaced_is_not_taken_for_the_one_opened(base, tmp_path):
    library = random_library(tmp_path / "lib", base, 3, ranks=2)
    other = random_library(tmp_path / "other", base, ["e1"], ranks=2, seed=1)
    Library.open(library.path).replace(other["e1"].directory, "e1")
    with pytest.raises(LibraryError, match=r"^error\[E-FILE\] expert 'e1': adapter_model.safetensors has changed"):
        open_experts(library)


def test_bad_numbers_are_found_in_whole_files(base, tmp_path):
    def spoil(tensors):
        next(iter(tensors.values()))[0, 0] = torch.nan
        return tensors

    _, opened = reopened(random_library(tmp_path / "lib", base, 3, ranks=2), spoil)
    with pytest.raises(AdapterError, match=r"^error\[E-NONFINITE\] expert 'e1': "):
        gram(opened, 0.5)
