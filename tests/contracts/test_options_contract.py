"""What the options of every method promise; a new file in any folder of methods is tested without an edit here."""

import dataclasses
import typing
from collections.abc import Iterator

import pytest

from lorary.building.clustering.clusters import Clusters
from lorary.errors import OptionError
from lorary.folder import BACKENDS, BENCHMARKS, BUILDERS, CLUSTERERS, EVALUATORS, ROUTERS, STUDIES, TRACKERS, Folder
from lorary.hashing import hash_json
from lorary.options import as_dict, split_spec, to_spec

FOLDERS = (ROUTERS, BUILDERS, CLUSTERERS, EVALUATORS, BENCHMARKS, BACKENDS, STUDIES, TRACKERS)
METHODS = [pytest.param(folder, name, id=f"{folder.kind}-{name}") for folder in FOLDERS for name in folder.names()]
NEEDED = {"per_cluster": {"clusters": Clusters({"c0": ("a",)})}, "weighted": {"weights": (1.0,)}}
TEXTS = ("plain", "two words", "none", "None", "", " ", 'a, "b" (c', "k=v", "it's", '"', "back\\", "ü\n")


def a_method(folder: Folder, name: str) -> typing.Any:
    return folder.load(name)(**NEEDED.get(name, {}))


def fields_of(method: typing.Any) -> Iterator[tuple[str, typing.Any]]:
    hints = typing.get_type_hints(type(method))
    for field in dataclasses.fields(method):
        yield field.name, hints[field.name]


def values_of(hint: typing.Any, now: typing.Any) -> list[typing.Any]:
    """Give values that an option of this type may well have."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        texts = [("q_proj",), ("q_proj", "v_proj"), TEXTS[:4], TEXTS]
        return {float: [(), (0.5,), (0.25, 1e-9)], int: [(), (3,), (1, 20)]}.get(kind, texts)
    kinds = typing.get_args(hint) or (hint,)
    known = {int: [3], float: [0.25, 1e-05], bool: [not now], type(None): [None], str: list(TEXTS)}
    return [
        v for kind in kinds for v in (known[kind] if kind in known else values_of(kind, now) if kind != hint else [])
    ]


@pytest.mark.parametrize(("folder", "name"), METHODS)
def test_what_is_written_is_read_again(folder, name):
    method = a_method(folder, name)
    for field, hint in fields_of(method):
        for value in values_of(hint, getattr(method, field)):
            changed = dataclasses.replace(method, **{field: value})
            if name != "per_cluster":  # it reads a file
                assert folder.parse(to_spec(changed)) == changed


@pytest.mark.parametrize(("folder", "name"), METHODS)
def test_values_of_another_type_are_refused(folder, name):
    method = a_method(folder, name)
    for field, hint in fields_of(method):
        wrong: list[typing.Any] = [
            object(),
            "Nonsense" if hint is not str and str not in typing.get_args(hint) else 1,
        ]
        wrong += [float("nan"), float("inf"), float("-inf"), 10**30]
        for value in wrong:
            with pytest.raises(OptionError) as caught:
                dataclasses.replace(method, **{field: value})
            assert str(caught.value).startswith(f"error[E-OPTION] {name}: {field}=")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("compass:up=nan", "compass: up=nan, expected a finite number."),
        ("compass:along=-inf", "compass: along=-inf, expected a finite number."),
        (
            "compass:seed=99999999999999999999",
            "compass: seed=99999999999999999999, expected a whole number from 0 to",
        ),
        ("compass:seed=-1", "compass: seed=-1, expected a whole number from 0 to 4294967295."),
    ],
)
def test_numbers_without_meaning_are_refused(spec, message):
    with pytest.raises(OptionError) as caught:
        ROUTERS.parse(spec)
    assert str(caught.value).startswith(f"error[E-OPTION] {message}")


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ("a:b=(c, d),e=f", {"b": "(c, d)", "e": "f"}),
        ('a:b="c,d=(",e=f', {"b": '"c,d=("', "e": "f"}),
        ('a:b=("c,)",d),e="\\"",f=\'', {"b": '("c,)",d)', "e": '"\\""', "f": "'"}),
    ],
)
def test_commas_in_brackets_and_quotes_part_nothing(spec, values):
    assert split_spec(spec) == ("a", values)


def test_names_may_stand_in_quotes_as_python_writes_them():
    assert BUILDERS.parse("private:targets=('q_proj', \"v_proj\")").targets == ("q_proj", "v_proj")


@pytest.mark.parametrize("none", ["none", "None"])
def test_none_is_read_as_python_writes_it_too(none):
    assert ROUTERS.parse(f"compass:top_k={none}").top_k is None


@pytest.mark.parametrize(("folder", "name"), METHODS)
def test_one_text_is_a_list_of_it(folder, name):
    """A text isn't a list of its letters; the same options have the same keys, however they are written."""
    method = a_method(folder, name)
    for field, hint in fields_of(method):
        if hint == tuple[str, ...]:
            one = dataclasses.replace(method, **{field: "all-linear"})
            listed = dataclasses.replace(method, **{field: ("all-linear",)})
            assert one == listed and hash(one) == hash(listed)
            assert to_spec(one) == to_spec(listed) and hash_json(as_dict(one)) == hash_json(as_dict(listed))
