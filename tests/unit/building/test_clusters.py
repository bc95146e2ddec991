"""groups.json is written whole, read strictly, and says what is wrong."""

import json

import pytest

from lorary.building.clustering.clusters import Clusters, name_groups, read_clusters
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


@pytest.mark.parametrize("clusters", ["[]", '{"c0": 3}', '{"c0": [["a"]]}', "null"])
def test_other_files_are_refused(clusters, tmp_path):
    path = tmp_path / "groups.json"
    path.write_text(f'{{"clusters": {clusters}}}')
    with pytest.raises(BuildError) as caught:
        read_clusters(path)
    assert str(caught.value) == (
        f'error[E-CLUSTERS] {path} is no groups file: expected {{"clusters": {{"c0": ["task", ...]}}}}. '
        "`lorary cluster` writes one."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "groups.json:1:1 is not JSON: expecting value."),
        ("[]", "groups.json holds a list, expected an object."),
        ("[" * 100_000, "groups.json is nested deeper than 32 levels."),
        ('{"clusters": {"c0": ["a"], "c0": ["b"]}}', "groups.json: key 'c0' is given twice."),
        ('{"clusters": {}, "dealt": 1e999}', "groups.json: '1e999' is not a finite number."),
    ],
)
def test_what_is_no_json_or_says_two_things_is_refused(text, message, tmp_path):
    (tmp_path / "groups.json").write_text(text)
    with pytest.raises(BuildError) as caught:
        read_clusters(tmp_path / "groups.json")
    assert str(caught.value) == f"error[E-CLUSTERS] {tmp_path}/{message} `lorary cluster` writes one."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": [1]}, "is no groups file: method is [1], expected an object with the method's name."),
        (
            {"method": {"name": 3}},
            "is no groups file: method is {'name': 3}, expected an object with the method's name.",
        ),
        ({"source": 4}, "is no groups file: source is 4, expected a string."),
        ({"names": "ab"}, "is no groups file: names is 'ab', expected a list of names."),
        ({"similarity": None}, "is no groups file: similarity is None, expected a list of rows of numbers."),
        ({"similarity": [["1"]]}, "is no groups file: similarity is [['1']], expected a list of rows of numbers."),
        ({"curve": 3}, "is no groups file: curve is 3, expected a list of objects of numbers."),
        ({"dealt": 1.5}, "is no groups file: dealt is 1.5, expected a whole number or null."),
        ({"similarity": [[1.0]]}, "names and similarity are no map of experts"),
        ({"similarity": [[1, 0], [0]]}, "names and similarity are no map of experts"),
        ({"names": ["b", "a"]}, "names and similarity are no map of experts"),
    ],
)
def test_fields_that_cannot_be_are_refused(fields, message, tmp_path):
    path = tmp_path / "groups.json"
    CLUSTERS.write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(BuildError) as caught:
        read_clusters(path)
    assert caught.value.code == "E-CLUSTERS" and message in str(caught.value)


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
    with pytest.raises(LibraryError) as caught:
        CLUSTERS.write(path)
    assert str(caught.value) == (
        f"error[E-EXISTS] '{path}' exists and isn't a groups file. Choose another path, or remove it."
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
