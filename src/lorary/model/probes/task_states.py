"""What the base makes of a task's examples."""

import torch
from torch import Tensor

from lorary.errors import OptionError, TaskError
from lorary.model.base.base_model import BaseModel
from lorary.model.sites import text_config
from lorary.model.text.tokens import pad
from lorary.tasks.task import Tasks


class TaskStates:
    """Answers a clusterer's questions about tasks, from their training parts."""

    def __init__(self, base: BaseModel, tasks: Tasks) -> None:
        self.base, self.tasks = base, tasks

    def mean_state(self, task: str, *, layer: int, n_examples: int) -> Tensor:
        """Run the base on training examples, completions included; mean over tokens, then examples, (d,) float32.

        layer: 0 is the embedding, -1 the last. Raises E-TASK for an unknown task, E-DATA for one without training
        examples, E-OPTION for a layer the base doesn't have.
        """
        base, examples = self.base, self.tasks[task].train[:n_examples]
        if not examples:
            raise TaskError("E-DATA", f"task {task!r} has no training examples.", "Check its splits.")
        n_layers = int(text_config(base.hf).num_hidden_layers)
        if not -n_layers - 1 <= layer <= n_layers:
            raise OptionError("E-OPTION", f"layer={layer}, but the base has {n_layers} layers.")
        rows = base.encode(examples)
        total = torch.zeros(text_config(base.hf).hidden_size)
        for group in base.in_groups(rows):
            batch = pad([rows[i] for i in group]).to(base.device)
            with torch.inference_mode(), base.head_at(torch.zeros_like(batch.mask, dtype=torch.bool)):
                states = base.hf(
                    input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions,
                    use_cache=False, output_hidden_states=True,
                ).hidden_states[layer].float()  # fmt: skip
            mask = batch.mask.unsqueeze(-1)
            total += ((states * mask).sum(1) / mask.sum(1)).sum(0).cpu()
        return total / len(examples)
