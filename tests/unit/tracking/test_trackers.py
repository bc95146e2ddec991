"""Each training is in each tracker once, step by step, whatever was killed before; nothing of it disturbs a build."""

import json

import pytest

import lorary as lo
from lorary import extras
from lorary.errors import OptionError
from lorary.library.adapter.provenance import read_metrics
from lorary.tracking.follow import Following, find_trackers
from trackio_place import give_trackio

QUICK = lo.Private(steps=3, batch_size=2, rank=2, n_evaluations=1, pack_tokens=1)


def read_tensorboard(place):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for directory in (place / "tb" / "lib").iterdir():
        events = EventAccumulator(str(directory)).Reload()
        found[directory.name] = [(event.step, event.value) for event in events.Scalars("loss")]
    return found


def read_mlflow(place):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    client = MlflowClient((place / "ml").as_uri())
    experiment = client.get_experiment_by_name("lib")
    return {
        run.info.run_name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")]
        for run in client.search_runs([experiment.experiment_id])
    }


def read_trackio(place):
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    found = {}
    for run in SQLiteStorage.get_runs("lib"):
        found[run] = [(row["step"], row["loss"]) for row in SQLiteStorage.get_logs("lib", run) if "loss" in row]
    return found


def records(data):
    """Give the records of a log as LevelDB writes it: blocks of 32 KiB, each record in one or several parts."""
    at, whole = 7, b""  # behind the file's own head
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # alone, or the last part
            yield whole
            whole = b""


def read_wandb(place):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    found = {}
    for path in (place / "wandb").glob("offline-run-*/*.wandb"):
        name, rows = "", []
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            name = record.run.display_name or name
            values = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            rows += [(int(values["_step"]), values["loss"])] if "loss" in values else []
        found[name] = rows
    return found


PLACES = {
    "tensorboard": ("tensorboard:into={}/tb", read_tensorboard),
    "mlflow": ("mlflow:uri=file://{}/ml", read_mlflow),
    "trackio": ("trackio", read_trackio),
    "wandb": ("wandb:mode=offline,into={}", read_wandb),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(base, toy, path, tracked, *, dies_at=None):
    """Build two experts, followed; dies_at: the expert at whose second step the build is broken off."""

    def report(step):
        tracked.look()
        if (step.job, step.step) == (dies_at, 2):
            raise KeyboardInterrupt

    try:
        lo.build(QUICK, toy.only(["copy", "swap"]), base, into=path, report=report)
    finally:
        tracked.look()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [name if name == "tensorboard" else pytest.param(name, marks=pytest.mark.slow) for name in PLACES]
)  # the others take seconds to be imported
def test_a_build_that_was_killed_and_resumed_gives_each_step_once(name, base, toy, place, monkeypatch):
    if extras.missing(name):
        pytest.skip(f"{name} isn't installed")
    if name == "trackio":
        give_trackio(place / "trackio", monkeypatch)
    spec, read = PLACES[name]
    (tracker,) = find_trackers([spec.format(place)])
    said = []
    with pytest.raises(KeyboardInterrupt):
        build(base, toy, place / "lib", Following(place / "lib", [tracker], said.append), dies_at="swap")
    assert len(said) == 1
    for _ in range(2):  # the second time nothing is left to build, nor to show
        build(base, toy, place / "lib", Following(place / "lib", [tracker], said.append))
    assert len(said) == 2, said
    library, found = lo.Library.open(place / "lib"), read(place)
    assert sorted(run.rpartition("-")[0] for run in found) == ["copy", "swap"]
    for run, points in found.items():
        rows = read_metrics(library[run.rpartition("-")[0]].directory)
        assert points == [(row["step"], pytest.approx(row["loss"])) for row in rows if "loss" in row]
        assert len(points) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_was_cut_short_is_made_anew(base, toy, place, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    lo.build(QUICK, toy.only(["copy"]), base, into=place / "lib")
    (tracker,) = find_trackers([f"mlflow:uri=file://{place}/ml"])
    log = MlflowClient.log_batch

    def dies(self, run, metrics, **others):
        log(self, run, metrics=metrics[:2], **others)
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowClient, "log_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        Following(place / "lib", [tracker], print).look()
    monkeypatch.setattr(MlflowClient, "log_batch", log)
    Following(place / "lib", [tracker], print).look()
    assert [step for step, _ in next(iter(read_mlflow(place).values()))] == [1, 2, 3]


# ---- without any tracker's package ---------------------------------------------------------------


class Broken:
    def show(self, training):
        raise ConnectionError("no such host\nas that")


class Kept:
    def __init__(self):
        self.shown = []

    def show(self, training):
        self.shown.append(training)
        return True


def test_a_tracker_that_fails_is_told_and_keeps_no_other_back(base, toy, tmp_path):
    lo.build(QUICK, toy.only(["copy"]), base, into=tmp_path / "lib")
    kept, said = Kept(), []
    following = Following(tmp_path / "lib", [Broken(), kept], said.append)
    with pytest.warns(
        RuntimeWarning, match=r"warning\[W-LOG\] 'copy' isn't in Broken: ConnectionError: no such host as"
    ):
        following.look()
    following.look()
    (training,) = kept.shown
    assert (training.group, training.name, said) == ("lib", "copy", ["copy is in Kept."])
    assert [row["step"] for row in training.rows] == [0, 1, 2, 3]


def test_a_new_base_is_followed_too(tmp_path):
    kept, following = Kept(), None
    following = Following(tmp_path / "full", [kept], print)
    following.look()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "kind": "x"}\n')
    following.look()
    assert kept.shown[0].rows == [{"step": 1, "loss": 2.0}]


@pytest.fixture
def all_here(monkeypatch):
    monkeypatch.setattr("lorary.tracking.follow.require_extra", lambda *_: None)


def test_trackers_are_named_in_one_list_or_several(all_here):
    found = find_trackers(["tensorboard:into=a b,mlflow", "wandb:mode=offline,into=x,trackio:project=p"])
    assert [repr(one) for one in found] == [
        "TensorBoard(into='a b')", "MLflow(uri='')", "Wandb(project='', mode='offline', into='x')",
        "Trackio(project='p')",
    ]  # fmt: skip


def test_what_is_wrong_with_a_list_is_said(monkeypatch):
    with pytest.raises(OptionError, match=r"E-NAME.*unknown tracker 'tensorbord'. Did you mean 'tensorboard'"):
        find_trackers(["tensorbord"])
    monkeypatch.setattr(extras, "version_of", lambda name: None)
    monkeypatch.setattr(extras, "_is_here", lambda name: False)
    with pytest.raises(OptionError) as caught:
        find_trackers(["wandb"])
    assert str(caught.value) == (
        'error[E-EXTRA] --log wandb needs wandb>=0.31, found none. Run: pip install "wandb>=0.31".'
    )
