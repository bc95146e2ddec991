"""A training by transformers or TRL ends as an expert: its bytes, its provenance, and what is refused when."""

import json
import shlex
from types import SimpleNamespace

import peft
import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainerState, TrainingArguments

import lorary as lo
from lorary.cli.app import command_line
from lorary.errors import LoraryError
from lorary.library.adapter.provenance import read_metrics
from lorary.testing.pico import pico_base, pico_tokenizer, random_library

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("FutureWarning", "UserWarning", "DeprecationWarning")
]  # of the trainers and PEFT, not ours
TARGETS = ["q_proj", "v_proj"]
QUIET = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "logging_steps": 1}
QUIET |= {"save_strategy": "no", "bf16": False}


def ids():
    return torch.randint(2, 258, (2, 9), generator=torch.Generator().manual_seed(7))


def answer(model):
    with torch.inference_mode():
        return model.eval()(input_ids=ids()).logits


def adapted(**options):
    return peft.get_peft_model(
        pico_base().hf, peft.LoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM", **options)
    )


def train(model, callback, out, **options):
    """Train for two steps, for real; a high rate so that the answers change."""
    rows = [{"input_ids": row, "labels": row, "attention_mask": [1] * 9} for row in ids().repeat(4, 1).tolist()]
    args = TrainingArguments(str(out), **{"max_steps": 2, "learning_rate": 0.05, "seed": 5, **QUIET, **options})
    trainer = Trainer(model, args, train_dataset=Dataset.from_list(rows), callbacks=[callback])
    trainer.train()
    return trainer


def routed_answer(library, name):
    lone = lo.Library.create(library.path.with_name(f"lone-{name}"), base=library.base)
    lone.add(library[name].directory, name)
    with lo.route(pico_base(), lone, "uniform", mix="outputs") as model, torch.inference_mode():
        return model(ids()).logits


def test_what_a_trainer_trained_is_an_expert(base, tmp_path):
    callback, model = lo.AddToLibrary(tmp_path / "lib", "poems", tasks=["poems"], base="pico-llama"), adapted()
    before = answer(model)
    trainer = train(model, callback, tmp_path / "out")
    library = lo.Library.open(tmp_path / "lib")
    expected = answer(trainer.model)
    assert (expected - before).abs().max() > 0.1
    torch.testing.assert_close(routed_answer(library, "poems"), expected, atol=1e-5, rtol=1e-5)
    made = library["poems"].provenance
    assert (made.tasks, made.steps, made.seed, callback.error) == (("poems",), 2, 5, None)
    assert made.base_fingerprint == base.fingerprint == library.base
    args = trainer.args
    assert made.builder["arguments"] == {
        "class": "TrainingArguments", "max_steps": 2, "learning_rate": 0.05, "use_cpu": True,
        "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "num_train_epochs": 3.0,
        "optim": args.optim.value, "lr_scheduler_type": "linear",
    }  # fmt: skip
    assert made.builder["examples"] == 8
    rows = read_metrics(library["poems"].directory)
    assert [row["step"] for row in rows] == [1, 2]
    assert all({"loss", "grad_norm", "lr"} <= row.keys() for row in rows)
    assert made.metrics["train_loss"] == pytest.approx(sum(row["loss"] for row in rows) / 2, abs=1e-3)
    assert str(tmp_path) not in (library["poems"].directory / "expert.json").read_text()
    assert library["poems"].config["base_model_name_or_path"] == "pico-llama"
    assert not list((tmp_path / "out").glob("poems*"))  # nothing is left to clean up
    assert callback.expert.hash == library["poems"].hash


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_trl_trained_is_an_expert(tmp_path):
    import trl  # takes seconds

    tokenizer = pico_tokenizer()
    callback = lo.AddToLibrary(tmp_path / "lib", "poems")
    args = trl.SFTConfig(str(tmp_path / "out"), **{**QUIET, "max_steps": 2, "learning_rate": 0.05, "max_length": 64})
    data = Dataset.from_list([{"prompt": "copy: a b\n", "completion": "a b"}] * 4)
    trainer = trl.SFTTrainer(
        pico_base().hf, args, train_dataset=data, processing_class=tokenizer, callbacks=[callback],
        peft_config=peft.LoraConfig(r=4, target_modules=TARGETS, task_type="CAUSAL_LM"),
    )  # fmt: skip
    trainer.train()
    library = lo.Library.open(tmp_path / "lib")
    torch.testing.assert_close(routed_answer(library, "poems"), answer(trainer.model), atol=1e-5, rtol=1e-5)
    made = library["poems"].provenance
    assert (made.builder["arguments"]["class"], made.builder["examples"]) == ("SFTConfig", 4)
    assert "n_tokens" in read_metrics(library["poems"].directory)[-1]


# ---- refused before anything is trained -----------------------------------------------------------


def begin(callback, model):
    callback.on_train_begin(None, TrainerState(), None, model=model)


def end(callback, model, out):
    """End a training of three steps as a trainer does."""
    state = TrainerState(global_step=3, log_history=[{"loss": 1.5, "step": 3}])
    callback.on_train_end(SimpleNamespace(output_dir=str(out), seed=1), state, None, model=model)


def refused(callback, model):
    with pytest.raises(LoraryError) as caught:
        begin(callback, model)
    return str(caught.value)


def test_a_trainer_passes_a_refusal_on_before_it_trains(tmp_path):
    callback = lo.AddToLibrary(tmp_path / "lib", "poems")
    with pytest.raises(LoraryError, match=r"error\[E-FEATURE\] expert 'poems': use_dora"):
        train(adapted(use_dora=True), callback, tmp_path / "out")
    assert not (tmp_path / "lib").exists()


def test_what_no_library_takes_is_refused_before_training(base, tmp_path):
    assert "without an adapter of PEFT" in refused(lo.AddToLibrary(tmp_path / "lib", "poems"), base.hf)
    random_library(tmp_path / "lib", base, ["poems"])
    assert "E-EXISTS" in refused(lo.AddToLibrary(tmp_path / "lib", "poems"), adapted())
    random_library(tmp_path / "other", pico_base(seed=1), ["ant"])
    assert "E-BASE" in refused(lo.AddToLibrary(tmp_path / "other", "poems"), adapted())
    with pytest.raises(LoraryError, match="E-NAME"):
        lo.AddToLibrary(tmp_path / "lib", "../poems")


@pytest.mark.parametrize("mark", ["ds_id", "device_mesh"])
def test_weights_in_parts_are_refused_before_training(mark, tmp_path):
    model = adapted()
    setattr(next(model.parameters()), mark, 1)
    assert "E-DEVICE" in refused(lo.AddToLibrary(tmp_path / "lib", "poems"), model)


# ---- what goes wrong at the end loses nothing ----------------------------------------------------


def test_what_can_t_be_added_is_kept_and_the_message_adds_it(base, tmp_path):
    callback, model = lo.AddToLibrary(tmp_path / "lib", "poems", tasks=["poems"], base="pico-llama"), adapted(r=2)
    begin(callback, model)
    random_library(tmp_path / "lib", base, ["poems"])  # another process was first
    with pytest.warns(RuntimeWarning, match="W-TRAINER") as told:
        end(callback, model, tmp_path / "my out")
    assert callback.expert is None and callback.error.code == "E-EXISTS"
    message = str(next(w.message for w in told if "W-TRAINER" in str(w.message)))
    line = message.rpartition("to add it: `")[2].rstrip(".").rstrip("`").replace("ANOTHER_NAME", "again")
    command_line()(shlex.split(line)[1:], standalone_mode=False)
    library = lo.Library.open(tmp_path / "lib")
    torch.testing.assert_close(routed_answer(library, "again"), answer(model), atol=1e-5, rtol=1e-5)
    assert library["again"].provenance.steps == 3 and library["again"].provenance.tasks == ("poems",)


def test_a_place_that_can_t_be_written_is_told(tmp_path, monkeypatch):
    callback, model = lo.AddToLibrary(tmp_path / "lib", "poems"), adapted(r=2)
    begin(callback, model)

    def full(self, directory, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model), "save_pretrained", full)
    with pytest.warns(RuntimeWarning, match=r"error\[E-DISK\].*It is in memory: trainer.save_model"):
        end(callback, model, tmp_path / "out")
    assert callback.error.code == "E-DISK"
    (tmp_path / "out" / "checkpoint-3").mkdir()
    with pytest.warns(RuntimeWarning, match="The adapter is in '.*checkpoint-3'; to add it: `lorary add"):
        end(callback, model, tmp_path / "out")


# ---- who writes, and what is replaced ------------------------------------------------------------


def test_only_the_first_process_writes(tmp_path):
    callback, state = lo.AddToLibrary(tmp_path / "lib", "poems"), SimpleNamespace(is_world_process_zero=False)
    callback.on_train_begin(None, state, None, model=adapted())
    callback.on_train_end(SimpleNamespace(output_dir=str(tmp_path / "out")), state, None, model=adapted())
    assert list(tmp_path.iterdir()) == [] and callback.expert is None


def test_an_expert_is_replaced_if_asked(base, tmp_path):
    library, model = random_library(tmp_path / "lib", base, ["ant", "poems"]), adapted(r=2)
    before = library["poems"].hash
    callback = lo.AddToLibrary(library, "poems", replace=True)
    begin(callback, model)
    end(callback, model, tmp_path / "out")
    again = lo.Library.open(tmp_path / "lib")
    assert again["poems"].hash != before and set(again) == {"ant", "poems"}
    assert (again["poems"].rank, again["poems"].provenance.steps) == (2, 3)
    assert again["poems"].config["base_model_name_or_path"] == library["ant"].config["base_model_name_or_path"]


def test_the_rows_of_a_history():
    from lorary.model.trainers.training_facts import rows_of

    history = [
        {"loss": 2.0, "learning_rate": 0.1, "step": 1}, {"eval_loss": 1.5, "step": 1},
        {"loss": float("nan"), "epoch": 1.0, "step": 2}, {"train_runtime": 3.0, "train_loss": 1.0, "step": 2},
    ]  # fmt: skip
    assert rows_of(history) == [{"step": 1, "loss": 2.0, "lr": 0.1, "valid_loss": 1.5}, {"step": 2, "epoch": 1.0}]
    assert json.dumps(rows_of(history))
