"""Run a routed model on one prompt, with its routings recorded."""

from collections.abc import Sequence

import torch

from lorary.model.attached.slot import Slot
from lorary.model.base.base_model import BaseModel
from lorary.model.decoding.answer import endings
from lorary.model.routed.trace import Trace, make_trace
from lorary.model.text.scoring import Turn, encode_open
from lorary.options import require, require_count
from lorary.tasks.example import Example


def explain_answer(
    base: BaseModel, slot: Slot, turn: Turn, prompt: str | Example, *, names: Sequence[str], max_new_tokens: int,
    answer: Sequence[int] | None = None,
) -> Trace:  # fmt: skip
    """Answer a prompt with up to max_new_tokens (0: only read it), and record the routing at each token and site.

    answer: the tokens that were its answer, of up to max_new_tokens; then none are made.
    """
    require("prompt", prompt, (str, Example), "a text or an example")
    require_count("max_new_tokens", max_new_tokens, least=0)
    example = prompt if isinstance(prompt, Example) else Example(prompt, "")
    (row,) = encode_open(base, [example], max_new_tokens)
    ids = torch.tensor([[*row.prompt, *(answer or ())]], device=base.device)
    with torch.inference_mode(), turn([example]):
        context = slot.context
        if max_new_tokens and answer is None:
            mask = torch.ones_like(ids)
            ids = base.hf.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False,
                **endings(base, [example]),
            )  # fmt: skip
        slot.context = context
        with slot.recording() as records:
            base.hf(input_ids=ids, use_cache=False)
    tokens = [base.tokenizer.decode([i]) for i in ids[0].tolist()]
    return make_trace(tokens, names, records, len(row.prompt), slot.evidence)
