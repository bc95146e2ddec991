"""What the studies of the paper plan, and how they lay out and judge: nothing is trained here."""

import json
from collections import Counter

import pytest
from fake_scores import fake_scores

from lorary.building.builders.lib_poly import LibPoly
from lorary.building.builders.mhr import MHR
from lorary.errors import OptionError, TaskError
from lorary.evaluation.evaluators.choice import Choice
from lorary.studies.comparing.rows import ANSWERS
from lorary.studies.contract import TRAINED, UNSEEN, Results, Subject
from lorary.studies.cost import foresee
from lorary.studies.questions.ablations import AblationStudy
from lorary.studies.questions.adaptation import AdaptationStudy
from lorary.studies.questions.sni import GROUP, PAPERS_TASKS, SniStudy
from lorary.studies.questions.upstream import UpstreamStudy
from lorary.studies.questions.zero_shot import ZeroShotStudy
from lorary.studies.scales import at_scale

OWN, NEW = ["copy", "swap", "upper"], ["first", "last"]
KNOWING = ("private-oracle", "mbc-oracle", "poly-poly", "mhr-mhr")


@pytest.fixture
def subject(toy):
    return Subject(toy.only(OWN), toy.only(NEW))


def rows_by_group(plan):
    found = {}
    for cell in plan.cells:
        found.setdefault(cell.group, []).append(cell.name)
    return found


def test_upstream_scores_every_library_and_router_on_trained_tasks(subject):
    plan = UpstreamStudy().plan(subject)
    rows = rows_by_group(plan)
    assert {*rows} == {TRAINED, ANSWERS + TRAINED}
    assert rows[TRAINED] == rows[ANSWERS + TRAINED]
    assert {"base", "full", "shared", "private-tp", "mbc-cm", "gated-phatgoose", *KNOWING} <= {*rows[TRAINED]}
    assert [build.path for build in plan.builds] == [
        f"libs/{name}" for name in ("private", "gated", "first", "mbc", "shared", "poly", "mhr", "full")
    ]
    assert all(build.is_shared for build in plan.builds)


def test_who_knows_the_task_has_no_answer_to_unseen_ones(subject):
    rows = rows_by_group(ZeroShotStudy().plan(subject))
    assert {*rows} == {UNSEEN, ANSWERS + UNSEEN}
    assert not {*KNOWING} & {*rows[UNSEEN]}
    assert {"private-arrow", "mbc-uniform", "full"} <= {*rows[UNSEEN]}


def test_benchmarks_are_scored_by_their_own_metric_and_judged_by_their_mean(toy, subject):
    quiz = Subject(subject.tasks, toy.only([]), benchmarks={"quiz": (Choice(), toy.only(["first"]))})
    plan = ZeroShotStudy(libraries=("shared",)).plan(quiz)
    assert {(cell.name, cell.group, type(cell.evaluator)) for cell in plan.cells} == {
        ("base", "quiz", Choice), ("shared", "quiz", Choice),
    }  # fmt: skip
    how = {"metric": "choice", "unit": "0-100", "higher": True}
    rows = {name: fake_scores(name, {"q": [value] * 8}, **how) for name, value in (("mbc-arrow", 100.0), ("base", 0.0))}
    other = {name: fake_scores(name, {"r": [50.0] * 8}, **{**how, "metric": "exact_match"}) for name in rows}
    study = ZeroShotStudy()
    verdicts = {v.claim.partition(":")[0]: v for v in study.judge(Results({"quiz": rows, "riddle": other}))}
    assert (verdicts["C13"].outcome, verdicts["C13"].interval[0]) == ("holds in sign", 50.0)
    assert verdicts["C8"].outcome == "can't tell"
    assert [table.columns[0].group for table in study.tables(Results({"quiz": rows, "riddle": other}), "")] == [
        "quiz", "mean of the benchmarks",
    ]  # fmt: skip


def test_without_benchmarks_or_held_out_tasks_there_is_nothing_unseen(toy, subject):
    with pytest.raises(TaskError, match=r"E-TASK.*no task is held out\. Name some: --heldout NAME"):
        ZeroShotStudy().plan(Subject(subject.tasks, toy.only([])))


# ---- adaptation ---------------------------------------------------------------------------------


def test_mixtures_adapt_to_one_task_at_a_time_and_smaller_shares_are_part_of_larger_ones(subject):
    plan = AdaptationStudy(shares=(1.0, 0.25)).plan(subject)
    joint = [build for build in plan.builds if isinstance(build.builder, LibPoly)]
    assert all(len(build.tasks) == 1 for build in joint)
    alone = {build.path: build for build in plan.builds if build.path.startswith("adapted/no-library")}
    whole, part = (alone[f"adapted/no-library/{share}"].tasks["first"].train for share in ("1", "0.25"))
    assert {*part} < {*whole}
    assert len(part) == round(len(whole) / 4)
    rows = rows_by_group(plan)
    assert {*rows} == {"100 % of the data", "25 % of the data"}
    assert Counter(rows["25 % of the data"])["mbc-poly"] == len(NEW)
    assert {cell.router for cell in plan.cells if cell.name == "mbc-poly"} == {"poly"}


def test_the_steps_of_an_adaptation_are_foreseen_and_equal(subject):
    alike = ("no-library", "mbc-mu", "mbc-poly", "mhr", "random-poly")
    study = AdaptationStudy(shares=(1.0,), methods=alike)
    steps = Counter()
    for cost in foresee(study, subject, None, "none"):
        steps[cost.path.split("/")[2] if "/adapted/" in cost.path else "else"] += cost.steps
    assert {name: steps[name] for name in alike} == dict.fromkeys(alike, 2 * study.new_steps)


def test_each_library_of_joint_experts_is_adapted_by_its_own_routing(subject):
    plan = AdaptationStudy(shares=(1.0,)).plan(subject)
    of = {build.path.split("/")[1]: build for build in plan.builds if build.path.startswith("adapted/")}
    assert (of["mhr"].source, of["mhr"].builder.n_heads) == ("libs/mhr", MHR().n_heads)
    routers = {cell.library.split("/")[1]: cell.router for cell in plan.cells if cell.library}
    assert {name: routers[name] for name in ("mhr", "poly", "mbc-polyz", "shared")} == {
        "mhr": "mhr", "poly": "poly", "mbc-polyz": "poly", "shared": "oracle",
    }  # fmt: skip
    assert (of["random-poly"].source, of["random-poly"].builder) == ("libs/random", of["mbc-poly"].builder)
    (groups,) = (build.builder for build in plan.builds if build.path == "libs/random")
    seen = groups.batch_size * groups.steps * len(groups.clusters)
    study = AdaptationStudy()
    assert abs(seen - study.steps * study.batch_size * len(subject.tasks)) <= groups.batch_size * len(groups.clusters)


@pytest.mark.parametrize("shares", [(0.0,), (1.5,)])
def test_shares_must_be_shares(shares):
    with pytest.raises(OptionError, match="each above 0 and at most 1"):
        AdaptationStudy(shares=shares)


def test_without_a_share_nothing_is_planned(toy):
    with pytest.raises(OptionError, match="shares=.*expected one or more"):
        AdaptationStudy(shares=()).plan(Subject(toy.only(["copy", "swap"]), toy.only(["upper"])))


# ---- sni ----------------------------------------------------------------------------------------


def test_stand_ins_are_marked_with_what_they_stand_for(tmp_path):
    path = tmp_path / "stand_ins.json"
    path.write_text(json.dumps({"mine": PAPERS_TASKS[0], "other": {"paper_task": PAPERS_TASKS[3]}, "own": {"n": 3}}))
    study = SniStudy(stand_ins=path)
    values = {name: [50.0] * 6 for name in ("mine", "other", "own", PAPERS_TASKS[3])}
    how = {"metric": "rouge_l", "unit": "0-100", "higher": True}
    rows = {name: fake_scores(name, values, **how) for name in ("mbc-uniform", "shared")}
    mean, each = study.tables(Results({GROUP: rows}), "sni")
    assert [column.group for column in mean.columns] == [GROUP]
    assert [column.group for column in each.columns] == [
        PAPERS_TASKS[3], f"mine (stand-in for {PAPERS_TASKS[0]})", f"other (stand-in for {PAPERS_TASKS[3]})",
        "own (stand-in)",
    ]  # fmt: skip
    assert all("3 of 4 tasks are stand-ins." in verdict.numbers for verdict in study.judge(Results({GROUP: rows})))


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "holds no JSON object"), ("{", "can't be read as JSON"), ('{"a": "task1"}', "no task of the paper")],
)
def test_a_file_of_no_stand_ins_is_refused_before_anything_is_built(text, message, subject, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(OptionError, match=message):
        SniStudy(stand_ins=tmp_path / "x.json").plan(subject)


# ---- ablations, scales --------------------------------------------------------------------------


def test_each_ablation_changes_one_thing(subject):
    plan = AblationStudy(top_k=(1,), temperatures=(4.0,), ranks=(16,), sizes=(0.5,)).plan(subject)
    rows = {cell.name: cell for cell in plan.cells if cell.group == TRAINED}
    assert {name: (cell.library, cell.router, cell.mix) for name, cell in rows.items()} == {
        "base": (None, "uniform", None),
        "uniform": ("libs/private", "uniform", None),
        "arrow": ("libs/private", "arrow", None),
        "top_k=1": ("libs/private", "arrow:top_k=1", None),
        "temperature=4": ("libs/private", "arrow:temperature=4", None),
        "mix=outputs": ("libs/private", "arrow", "outputs"),
        "own start": ("libs/private-own-start", "arrow", None),
        "own start, uniform": ("libs/private-own-start", "uniform", None),
        "rank=16": ("libs/private-rank16", "arrow", None),
    }
    builds = {build.path: build for build in plan.builds}
    assert builds["libs/private-rank16"].builder.rank == 16
    assert list(builds["libs/private-size0.5"].tasks) == ["copy", "swap"]
    assert {cell.name for cell in plan.cells if cell.group.startswith("tasks of")} == {"size=0.5", "size=1"}


def test_at_the_papers_scale_the_budget_is_split_in_epochs_as_its_code_trains(subject):
    study = at_scale("upstream", "paper")
    private, first = study.private(), study.first()
    assert (private.steps, private.epochs, first.epochs) == (None, 5.0, 2.0)
    assert (private.clip, private.batch_size, private.loss) == (0.1, 16, "examples")
    assert study.joint(3)["poly"].n_skills == 8
    assert study.full(3).lr == 3e-5
