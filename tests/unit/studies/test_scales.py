"""Presets of size that every study takes."""

import dataclasses

import pytest

from lorary.errors import OptionError
from lorary.folder import STUDIES
from lorary.studies.contract import Subject
from lorary.studies.paper import ORDER, foresee_paper, parts_of, sharing
from lorary.studies.questions.upstream import UpstreamStudy
from lorary.studies.run_study import repeated
from lorary.studies.scales import OPTIONS, SCALES, at_scale, cut_to, seeds_at
from lorary.tasks.task import Task, Tasks


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", STUDIES.names())
def test_every_study_takes_every_scale(name, scale):
    study = at_scale(name, scale)
    own = study.presets.get(scale, {})
    for field in dataclasses.fields(study):
        expected = own.get(field.name, OPTIONS[scale].get(field.name))
        assert expected in (None, getattr(study, field.name))


def test_what_is_given_stands_over_the_scale():
    found = at_scale("upstream:steps=7", "tiny")
    assert (found.steps, found.n_fit) == (7, OPTIONS["tiny"]["n_fit"])
    assert at_scale("upstream", None) == UpstreamStudy()
    with pytest.raises(OptionError, match=r"scale='minni'.*Did you mean 'mini'"):
        at_scale("upstream", "minni")


def test_close_claims_get_seeds_at_the_scale_that_has_them():
    assert seeds_at("zero_shot", "mini") == (42, 43, 44)
    assert seeds_at("zero_shot", "tiny") is None
    assert seeds_at("ablations", "mini") is None


def test_further_seeds_repeat_the_libraries_whose_claims_are_close(toy):
    study = at_scale("upstream:steps=3", "mini")
    runs = repeated(study, (42, 43))
    assert runs["seed42"] == study
    assert runs["seed43"] == dataclasses.replace(study, seed=43, libraries=("private", "mbc"))
    assert repeated(UpstreamStudy(), (1, 2))["seed2"] == UpstreamStudy(seed=2), "none named: all"
    with pytest.raises(OptionError, match="again"):
        UpstreamStudy(again=("privat",)).plan(Subject(toy, toy))


def test_tasks_are_cut_evenly():
    tasks = Tasks(Task(f"t{i:03}") for i in range(100))
    cut = cut_to(Subject(tasks, tasks.only([f"t{i:03}" for i in range(12)])), "tiny")
    assert list(cut.tasks) == ["t000", "t025", "t050", "t075"]
    assert list(cut.heldout) == ["t000", "t006"]
    assert cut_to(cut, "paper") == cut, "fewer stay as they are"


def test_the_paper_is_every_study_that_is_there_in_its_order():
    parts = parts_of("tiny", {"steps": "3"})
    assert [part.name for part in parts] == [name for name in ORDER if name in STUDIES.names()]
    assert {getattr(part.study, "steps", 3) for part in parts} == {3}
    assert [part.name for part in parts_of("tiny", {"studies": "(sni,upstream)"})] == ["upstream", "sni"]


MEASURED = {"similarity", "norms"}


@pytest.mark.parametrize(
    ("scale", "options", "apart"),
    [
        ("tiny", {}, set()),
        ("mini", {}, set()),
        (None, {}, MEASURED),
        (None, {"steps": "7"}, set()),
        ("paper", {}, MEASURED),
    ],
)
def test_who_trains_as_the_others_do_has_its_libraries_in_common_with_them(scale, options, apart, toy):
    parts = parts_of(scale, {"studies": "(similarity,norms,upstream,zero_shot,sni)", **options})
    subject = Subject(toy.only(["copy", "swap", "upper"]), toy.only(["first"]))
    assert {part.name for part in parts} - sharing(parts, subject) == apart
    paths = [cost.path for cost in foresee_paper(parts, subject, None, "none", scale) if cost.path.endswith("/private")]
    seeds = {path.split("/")[1] for path in paths}
    assert {path.split("/")[0] for path in paths} == {"shared", *apart}
    assert len(paths) == len(seeds) + len(apart)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepps": "3"}, "study paper: unknown option 'stepps'. Did you mean 'steps'?"),
        ({"presets": "3"}, "study paper: unknown option 'presets'."),
        ({"studies": "(upstrem)"}, "study paper: studies='upstrem'. Did you mean 'upstream'?"),
    ],
)
def test_what_no_study_has_is_refused(options, message):
    with pytest.raises(OptionError) as caught:
        parts_of(None, options)
    assert message in str(caught.value)
