"""groups.json is written whole, read strictly, and says what is wrong."""

import json

import pytest

from lorary.building.clusters import Clusters, name_groups, read_clusters
from lorary.errors import BuildError, LibraryError
from lorary.folder import BUILDERS

CLUSTERS = Clusters(
    {"c0": ("ants", "bees"), "c1": ("cats",)}, {"name": "mbc", "k": 2}, "abc", ("a", "b"), [[1, 0.5], [0.5, 1]]
)


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "deep" / "groups.json"
    CLUSTERS.write(path)
    CLUSTERS.write(path)
    found = read_clusters(path)
    assert found == CLUSTERS and hash(found) == hash(CLUSTERS)
    assert (found.method, found.source, found.names) == (CLUSTERS.method, "abc", ("a", "b"))
    assert found.similarity == CLUSTERS.similarity
    assert [p.name for p in path.parent.iterdir()] == ["groups.json"]
    assert json.loads(path.read_text())["clusters"] == {"c0": ["ants", "bees"], "c1": ["cats"]}


def test_other_groups_are_other_clusters():
    assert Clusters({"c0": ("ants",)}) != CLUSTERS
    assert Clusters(CLUSTERS.groups, source="elsewhere") == CLUSTERS
    assert (CLUSTERS["c1"], list(CLUSTERS), len(CLUSTERS)) == (("cats",), ["c0", "c1"], 2)


def test_hand_written_groups_will_do(tmp_path):
    (tmp_path / "groups.json").write_text('{"clusters": {"mine": ["a", "b"]}}')
    assert read_clusters(tmp_path / "groups.json") == Clusters({"mine": ("a", "b")})
    builder = BUILDERS.parse(f"per_cluster:clusters={tmp_path / 'groups.json'},rank=2")
    assert builder.clusters == Clusters({"mine": ("a", "b")})
    assert builder.rank == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"clusters": []}', '{"clusters": {"c0": 3}}', '{"clusters": null}'])
def test_other_files_are_refused(text, tmp_path):
    path = tmp_path / "groups.json"
    path.write_text(text)
    with pytest.raises(BuildError) as caught:
        read_clusters(path)
    assert str(caught.value) == (
        f'error[E-CLUSTERS] {path} is no groups file: expected {{"clusters": {{"c0": ["task", ...]}}}}. '
        "`lorary cluster` writes one."
    )


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BuildError) as caught:
        read_clusters(tmp_path / "none.json")
    assert str(caught.value) == (
        f"error[E-CLUSTERS] {tmp_path / 'none.json'} can't be read: No such file or directory. "
        "`lorary cluster` writes it."
    )


def test_a_string_is_not_a_list_of_tasks(tmp_path):
    (tmp_path / "groups.json").write_text('{"clusters": {"c0": "ants"}}')
    with pytest.raises(BuildError, match="is no groups file"):
        read_clusters(tmp_path / "groups.json")


def test_clusters_are_named_by_their_first_expert():
    found = name_groups([2, 0, 2, 1], [["z"], ["b", "a"], ["c"], ["d"]])
    assert found == {"c0": ("c", "z"), "c1": ("a", "b"), "c2": ("d",)}


@pytest.mark.parametrize("there", ["text", "directory", "link"])
def test_only_groups_are_written_over(there, tmp_path):
    path = tmp_path / "data.jsonl"
    if there == "text":
        path.write_text('{"prompt": "a", "completion": "b"}')
    elif there == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BuildError) as caught:
        CLUSTERS.write(path)
    assert str(caught.value) == (
        f"error[E-EXISTS] '{path}' is there and is no groups file. Choose another path, or remove it."
    )
    assert there != "text" or path.read_text() == '{"prompt": "a", "completion": "b"}'
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_groups_and_leaves_the_old(tmp_path, full_disk):
    path = tmp_path / "groups.json"
    CLUSTERS.write(path)
    with full_disk(), pytest.raises(LibraryError) as caught:
        Clusters({"c0": ("ants",)}).write(path)
    assert str(caught.value).startswith(f"error[E-DISK] '{path}': the disk is full (")
    assert read_clusters(path) == CLUSTERS
    assert list(tmp_path.iterdir()) == [path]
