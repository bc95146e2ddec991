"""A step that memory doesn't hold is made in smaller passes, from then on."""

import warnings
from collections.abc import Sequence

from lorary.building.training.trainable import Row, Trainable
from lorary.errors import ModelError
from lorary.model.text.batching import give_back_memory, too_long

_CODE = "W-MEMORY"


def smaller_pass(trainable: Trainable, rows: Sequence[Row], pass_tokens: int) -> int:
    """Give half of the padded tokens that a step's widest pass has, memory being given back and gradients empty.

    Raises E-MEMORY for a row that is a pass already, and where what is learned depends on the passes.
    """
    texts = [row.text for row in rows]
    groups = list(trainable.model.in_groups(texts, max_tokens=pass_tokens, max_rows=len(rows)))
    sizes = [len(group) * max(len(texts[i]) for i in group) for group in groups]
    widest = sizes.index(max(sizes))
    if len(groups[widest]) == 1:
        raise too_long(max(map(len, texts)))
    if trainable.penalty is not None:
        what = f"a pass of {sizes[widest]:,} tokens needs more memory than is free, and what is learned depends on it."
        raise ModelError("E-MEMORY", what, f"Give pass_tokens={sizes[widest] // 2}, or a smaller batch_size.")
    give_back_memory()
    for stack in trainable.stacks.values():
        stack.grad.zero_()
    half = sizes[widest] // 2
    what = (
        f"warning[{_CODE}] a pass of {sizes[widest]:,} tokens needs more memory than is free: they have {half:,} now."
    )
    warnings.warn(f"{what} pass_tokens={half} has them so from the start.", RuntimeWarning, stacklevel=2)
    return half
