"""Many models by many metrics: each cell is what `evaluate` alone writes, whoever evaluates it."""

import json

import pytest

from lorary.disk.growing import part_of
from lorary.errors import BuildError, EvaluationError, LoraryError, OptionError
from lorary.evaluation import evaluate as run_module
from lorary.evaluation.benchmarking.exams import as_exams
from lorary.evaluation.evaluate import evaluate
from lorary.evaluation.evaluators.exact_match import ExactMatch
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.grid.evaluate_grid import evaluate_grid
from lorary.grid.grid_work import GridWork
from lorary.grid.setup import Setup, file_part
from lorary.grid.survey_runs import holds_runs, survey_runs
from lorary.model.routed.route import route
from lorary.routing.routers.arrow import Arrow
from lorary.testing.contracts import files_of
from lorary.testing.pico import pico_base, random_library
from lorary.using import open_model
from lorary.work import claims
from lorary.work.backend import Order
from lorary.work.claims import Claim, Watch, claim, read_lease
from lorary.work.jobs import Listener
from lorary.work.worker import join

METRICS = (Perplexity(), ExactMatch(max_new_tokens=2))
ROUTERS = ("uniform", "arrow:top_k=1")
FILES = [f"lib-{router}.{metric}.jsonl" for router in ("uniform", "arrow-top_k=1")
         for metric in ("perplexity", "exact_match-max_new_tokens=2")]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def small_batches():
    """Batches that a run is interrupted between. What a batch shares is read once, so its size decides last digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "_EXAMPLES_AT_ONCE", 3)
        yield


@pytest.fixture
def tasks(toy):
    """Eight test examples."""
    return toy.only(["copy", "swap"])


@pytest.fixture(scope="module")
def library(_pico, tmp_path_factory):
    return random_library(tmp_path_factory.mktemp("grid") / "lib", _pico, ["copy", "swap"], seed=3)


@pytest.fixture
def setups(library):
    return [Setup(library, router) for router in ROUTERS]


@pytest.fixture(scope="module")
def singly(_pico, library, toy, tmp_path_factory):
    """The bytes that single evaluations write."""
    place = tmp_path_factory.mktemp("singly")
    for router in ROUTERS:
        with route(_pico, library, router) as model:
            for metric in METRICS:
                name = Setup(library, router).label
                into = place / f"{file_part(name)}.{metric_part(metric)}.jsonl"
                evaluate(metric, model, toy.only(["copy", "swap"]), into=into, name=name)
    return files_of(place)


def metric_part(metric):
    return "perplexity" if isinstance(metric, Perplexity) else "exact_match-max_new_tokens=2"


@pytest.fixture
def routed(monkeypatch):
    """Count what is routed."""
    seen = []
    monkeypatch.setattr(
        open_model,
        "route",
        lambda base, library, router, **how: seen.append(router) or route(base, library, router, **how),
    )
    return seen


def work_of(setups, tasks, base, into):
    return GridWork(tuple(setups), as_exams(METRICS, tasks), into, base)


# ---- one process --------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_cell_is_what_a_single_evaluation_writes(base, setups, tasks, tmp_path, singly, routed):
    steps, plans = [], []
    found = evaluate_grid(
        setups, METRICS, tasks, base=base, into=tmp_path / "runs", report=steps.append,
        on_plan=lambda jobs, done: plans.append(([job.name for job in jobs], done)),
    )  # fmt: skip
    assert list(found) == FILES
    assert files_of(tmp_path / "runs") == singly, "and nothing is left beside them"
    assert [(one.name, one.metric) for one in found.values()] == [
        (f"lib-{router}", metric) for router in ROUTERS for metric in ("perplexity", "exact_match:max_new_tokens=2")
    ]
    assert len(routed) == 2, "a router is routed once for all its metrics"
    assert plans == [([name.removesuffix(".jsonl") for name in FILES], [])]
    assert {step.job: (step.step, step.n_steps) for step in steps} == {name[: -len(".jsonl")]: (8, 8) for name in FILES}


def test_what_is_finished_is_not_done_again(base, setups, tasks, tmp_path, singly, routed):
    evaluate_grid(setups, METRICS, tasks, base=base, into=tmp_path)
    (tmp_path / FILES[3]).unlink()
    routed.clear()
    steps = []
    assert len(evaluate_grid(setups, METRICS, tasks, base=base, into=tmp_path, report=steps.append)) == 4
    assert {step.job for step in steps} == {FILES[3].removesuffix(".jsonl")} and routed == [Arrow(top_k=1)]
    assert files_of(tmp_path) == singly
    routed.clear()
    evaluate_grid(setups, METRICS, tasks, base=base, into=tmp_path)
    assert not routed


def test_an_interrupted_grid_resumes_within_the_cell(base, setups, tasks, tmp_path, singly):
    def interrupt(step):
        if step.job == FILES[1].removesuffix(".jsonl") and step.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_grid(setups, METRICS, tasks, base=base, into=tmp_path, report=interrupt)
    part = part_of(tmp_path / FILES[1])
    assert len(part.read_text().splitlines()) == 1 + 6
    assert survey_runs(tmp_path).counts == {"done": 1, "running": 0, "stale": 0, "failed": 0, "waiting": 3}
    steps = []
    evaluate_grid(setups, METRICS, tasks, base=base, into=tmp_path, report=steps.append)
    assert (steps[0].job, steps[0].step) == (FILES[1].removesuffix(".jsonl"), 6)
    assert files_of(tmp_path) == singly


def test_a_single_run_that_was_interrupted_is_continued_as_well(base, library, setups, tasks, tmp_path, singly):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), route(base, library, "uniform") as model:
        evaluate(METRICS[0], model, tasks, into=tmp_path / FILES[0], name="lib-uniform", progress=interrupt)
    steps = []
    evaluate_grid(setups, METRICS, tasks, base=base, into=tmp_path, report=steps.append)
    assert steps[0].step == 3
    assert files_of(tmp_path) == singly


def test_base_and_saved_model_are_setups_too(base, library, tasks, tmp_path):
    with route(base, library, "uniform") as model:
        model.save(tmp_path / "saved")
        alone = evaluate(Perplexity(), model, tasks, name="saved")
    found = evaluate_grid(
        [Setup(), Setup(tmp_path / "saved")], ["perplexity"], tasks, base=base, into=tmp_path / "runs"
    )
    assert list(found) == ["base.perplexity.jsonl", "saved.perplexity.jsonl"]
    assert found["base.perplexity.jsonl"].outcomes == evaluate(Perplexity(), base, tasks).outcomes
    assert found["saved.perplexity.jsonl"] == alone


# ---- several ------------------------------------------------------------------------------------


def test_two_workers_share_the_cells_each_at_a_model_of_its_own(base, setups, tasks, tmp_path, singly):
    """While the first is in the midst of its first cell, the second comes and does what is free."""
    other_base, others, mine = pico_base(), [], []

    def call_other(step):
        mine.append(step.job)
        if not others and step.step == 3:
            other = join(Order(work_of(setups, tasks, other_base, tmp_path), "other", Listener.of(None, others.append)))
            with other.runner.at_work():
                (busy,) = [pack for pack in other.packs if read_lease(other.worklist.pack_directory(pack))]
                assert not other.try_pack(busy)
                while free := [pack for pack in other.packs if pack != busy and pack.missing(tmp_path)]:
                    assert other.try_pack(other.runner.choose(free, [busy]))

    evaluate_grid(setups, METRICS, tasks, base=base, into=tmp_path, report=call_other)
    assert set(mine) == {FILES[0].removesuffix(".jsonl")}
    assert list(dict.fromkeys(step.job for step in others)) == [FILES[n].removesuffix(".jsonl") for n in (2, 3, 1)]
    assert files_of(tmp_path) == singly


def test_who_was_thought_dead_and_comes_back_writes_nothing(base, setups, tasks, tmp_path, singly, monkeypatch):
    """It stalls after three examples; another takes its cell over and finishes it. Its next batch is left out."""
    other_base, taken, asked = pico_base(), [], []
    monkeypatch.setattr(Claim, "beat", lambda self: None)

    def stall(step):
        asked.append((step.job, step.step))
        if not taken and step.step == 3:
            with monkeypatch.context() as patch:
                patch.setattr(claims.Lease, "is_dead", True)
                other = join(
                    Order(work_of(setups, tasks, other_base, tmp_path), "other", Listener.of(None, taken.append))
                )
                (cell,) = [pack for pack in other.packs if read_lease(other.worklist.pack_directory(pack))]
                with other.runner.at_work():
                    assert other.try_pack(cell)

    evaluate_grid(setups, METRICS, tasks, base=base, into=tmp_path, report=stall)
    assert [step.step for step in taken] == [3, 6, 8], "from the last whole batch"
    assert [step for job, step in asked if job == taken[0].job] == [0, 3]
    assert files_of(tmp_path) == singly


@pytest.mark.slow
def test_a_cell_that_fails_keeps_no_other_from_being_evaluated(base, setups, tasks, tmp_path, singly, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ExactMatch, "score", lambda *_: 1 / 0)
        with pytest.raises(BuildError) as caught:
            evaluate_grid(setups, METRICS, tasks, base=base, into=tmp_path)
    assert str(caught.value).startswith("error[E-JOBS] 2 packs of jobs failed: lib-")
    assert "ZeroDivisionError: division by zero (log: .work/logs/" in str(caught.value)
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {FILES[0], FILES[2]}
    assert survey_runs(tmp_path).counts == {"done": 2, "running": 0, "stale": 0, "failed": 2, "waiting": 0}
    evaluate_grid(setups, METRICS, tasks, base=base, into=tmp_path)
    assert files_of(tmp_path) == singly


def test_a_cell_that_kills_its_workers_is_given_up(base, setups, tasks, tmp_path, monkeypatch):
    worker = join(Order(work_of(setups, tasks, base, tmp_path), "run"))
    with monkeypatch.context() as patch:
        patch.setattr(claims.Lease, "is_dead", True)
        for _ in range(3):
            assert claim(worker.worklist.pack_directory(worker.packs[0]), Watch(), run="run")
        with worker.runner.at_work():
            worker.try_pack(worker.packs[0])
    with pytest.raises(BuildError, match="3 workers died at it"):
        worker.finish()
    assert len(list(tmp_path.glob("*.jsonl"))) == 3


# ---- refusals -----------------------------------------------------------------------------------


def refused(*arguments, **options):
    with pytest.raises(LoraryError) as caught:
        evaluate_grid(*arguments, **options)
    return str(caught.value)


def test_files_of_other_runs_are_refused_before_a_base_is_loaded(base, setups, tasks, tmp_path, toy):
    evaluate_grid(setups, METRICS, tasks, base=base, into=tmp_path)
    how = {"base": "no such base", "into": tmp_path}
    assert "holds another run: tasks.double.n_examples was absent, now 4" in refused(setups, METRICS, toy, **how)
    assert 'model.mix was "factors", now "outputs"' in refused(
        [Setup(setups[0].library, "uniform", mix="outputs")], METRICS, tasks, **how
    )
    (tmp_path / FILES[0]).rename(part_of(tmp_path / FILES[0]))
    assert f"{FILES[0]}.part: holds another run" in refused(setups, METRICS, toy, **how)


def test_scores_on_another_base_are_refused(base, setups, tasks, tmp_path):
    evaluate_grid(setups, METRICS, tasks, base=base, into=tmp_path)
    short = pico_base()
    short.max_tokens = 16
    with pytest.raises(EvaluationError, match="holds another run: model.max_tokens was 256, now 16"):
        evaluate_grid(setups, METRICS, tasks, base=short, into=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluators": ["choice"]}, "error[E-EVAL] "),
        ({"evaluators": ["rouge"]}, "error[E-NAME] unknown metric 'rouge'."),
        ({"evaluators": []}, "error[E-OPTION] 2 setups and 0 metrics: expected 1 or more of each."),
        ({"evaluators": ["rouge_l", "rouge_l"]}, "error[E-NAME] 'lib-uniform' by 'rouge_l' is given twice."),
        ({"setups": ["arrow"]}, "error[E-OPTION] setups[0] is 'arrow', expected a list of setups, as Setup("),
        ({"tasks": "tasks/"}, "error[E-OPTION] tasks is 'tasks/', expected tasks."),
        ({"limit": 0}, "error[E-OPTION] limit"),
        ({"backend": "rey"}, "error[E-NAME] unknown backend 'rey'."),
    ],
)  # fmt: skip
def test_what_can_be_known_at_once_is_refused_before_a_base_is_loaded(setups, tasks, tmp_path, change, message):
    given = {"setups": setups, "evaluators": METRICS, "tasks": tasks, **change}
    assert refused(**given, base="no such base", into=tmp_path / "runs").startswith(message)
    assert not (tmp_path / "runs").exists()


def test_routers_that_lack_something_are_refused_before_a_base_is_loaded(library, tasks, tmp_path):
    told = refused([Setup(library, "centroid")], METRICS, tasks, base="no such base", into=tmp_path / "runs")
    assert told.startswith("error[E-PROBE] ")
    with pytest.raises(OptionError, match="unknown router 'arow'"):
        Setup(library, "arow")
    with pytest.raises(EvaluationError, match="router 'arrow' was given, but the bare base has no experts"):
        Setup(None, "arrow")


def test_a_file_is_no_directory(base, setups, tasks, tmp_path):
    (tmp_path / "runs").write_text("x")
    assert refused(setups, METRICS, tasks, base=base, into=tmp_path / "runs").startswith("error[E-RUN] ")


def test_a_loaded_base_has_no_backend(base, setups, tasks, tmp_path):
    assert refused(setups, METRICS, tasks, base=base, into=tmp_path, backend="local:workers=2") == (
        "error[E-OPTION] a backend's workers load the base themselves. Give base= as a name."
    )


def test_a_directory_that_is_gone_is_told(base, setups, tasks, tmp_path):
    def move(step):
        if step.step == 3 and (tmp_path / "runs").exists():
            (tmp_path / "runs").rename(tmp_path / "there")

    told = refused(setups, METRICS, tasks, base=base, into=tmp_path / "runs", report=move)
    assert told.startswith(f"error[E-RUN] directory '{tmp_path / 'runs'}' is gone: it was moved or deleted")
    assert not (tmp_path / "runs").exists()


# ---- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [("arrow", "arrow"), ("private-arrow:top_k=4", "private-arrow-top_k=4"), ("rouge_l", "rouge_l")],
)
def test_usual_names_are_kept(text, expected):
    assert file_part(text) == expected


def test_other_names_become_safe_and_stay_apart():
    texts = ["a b", "a/b", "../a", "ärger", "", "a" * 300, "a" * 301, "CON:", ".hidden", "a\n", 'x:y="(1,2)"']
    made = [file_part(text) for text in texts]
    assert len(set(made)) == len(texts)
    assert all(part[0].isalnum() and len(part) < 100 and set(part) <= set(made_of()) for part in made), made


def made_of():
    return "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_=,+.-"


def test_setups_of_one_file_are_refused(base, library, tasks, tmp_path):
    twins = [Setup(library, "uniform", label="a:b"), Setup(library, "arrow", label="A-b")]
    told = refused(twins, ["rouge_l"], tasks, base=base, into=tmp_path)
    assert told.startswith(
        "error[E-NAME] 'a:b' by 'rouge_l' and 'A-b' by 'rouge_l' would be one file, A-b.rouge_l.jsonl."
    )


def test_a_directory_of_scores_is_told_from_others(base, setups, tasks, tmp_path, library):
    evaluate_grid(setups[:1], ["perplexity"], tasks, base=base, into=tmp_path / "runs")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    assert [holds_runs(tmp_path / name) for name in ("runs", "tasks", "none")] == [True, False, False]
    assert not holds_runs(library.path)
    (tmp_path / "runs" / "notes.jsonl").write_text("[" * 100_000)
    assert [job.name for job in survey_runs(tmp_path / "runs").jobs] == ["lib-uniform.perplexity"]
