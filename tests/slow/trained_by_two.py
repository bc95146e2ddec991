"""A training that two processes share, as torchrun starts them: DIRECTORY gets the library and what each one saw."""

import json
import os
import sys
from pathlib import Path

import peft
import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

import lorary as lo
from lorary.testing.pico import pico_base


def ids():
    return torch.randint(2, 258, (2, 9), generator=torch.Generator().manual_seed(7))


class CountCommits(lo.AddToLibrary):
    """Counts how often an adapter is taken into the library."""

    n_commits = 0

    def _add(self, *given):
        self.n_commits += 1
        return super()._add(*given)


class Watch(TrainerCallback):
    """Hears whether the model is trained by several, while it is."""

    is_shared = False

    def on_step_end(self, args, state, control, **others):
        self.is_shared = torch.distributed.is_initialized() and torch.distributed.get_world_size() == 2


def main(place):
    model = peft.get_peft_model(
        pico_base().hf, peft.LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    rows = [{"input_ids": row, "labels": row, "attention_mask": [1] * 9} for row in ids().repeat(8, 1).tolist()]
    args = TrainingArguments(
        str(place / "out"), max_steps=3, learning_rate=0.05, per_device_train_batch_size=2, report_to="none",
        disable_tqdm=True, use_cpu=True, logging_steps=1, save_strategy="no", bf16=False, ddp_backend="gloo",
    )  # fmt: skip
    callback, watch = CountCommits(place / "lib", "poems", base="pico-llama"), Watch()
    Trainer(model, args, train_dataset=Dataset.from_list(rows), callbacks=[callback, watch]).train()
    rank = int(os.environ["RANK"])
    with torch.inference_mode():
        torch.save(model.eval()(input_ids=ids()).logits, place / f"logits-{rank}.pt")
    told = {"n_commits": callback.n_commits, "is_shared": watch.is_shared, "error": str(callback.error)}
    (place / f"told-{rank}.json").write_text(json.dumps(told | {"has_expert": callback.expert is not None}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
