"""An example of each shape that the data has, as the model reads it: what --dry-run shows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lorary.cli.printing.console import printable, say

if TYPE_CHECKING:
    from lorary.model.base.base_model import BaseModel
    from lorary.tasks.example import Example
    from lorary.tasks.task import Tasks

_SHOWN = 1200  # characters of a text; of longer ones beginning and end


def samples(tasks: "Tasks", base: "BaseModel | None") -> list[dict[str, Any]]:
    """Take the first example of each shape, as its tokens read; as text alone without a base that has a tokenizer."""
    found: dict[str, dict[str, Any]] = {}
    for task in tasks.values():
        for shape, (n, example) in task.origin.shapes.items():
            if shape in found:
                found[shape]["rows"] += n
            else:
                found[shape] = {"shape": shape, "rows": n, "task": task.name, **_rendered(example, base)}
    return list(found.values())


def _rendered(example: "Example", base: "BaseModel | None") -> dict[str, Any]:
    if base is None:
        return {"prompt": example.whole_prompt, "completion": example.answer, "as_tokens": False}
    from lorary.model.text.tokens import encode

    [ids] = encode(base.tokenizer, [example], max_tokens=base.max_tokens)
    prompt, completion = (base.tokenizer.decode(list(side)) for side in (ids.prompt, ids.completion))
    return {"prompt": prompt, "completion": completion, "as_tokens": True}


def show_samples(shown: Sequence[dict[str, Any]]) -> None:
    """Write samples for people: the prompt's lines after "|", and after ">" what is trained on."""
    for sample in shown:
        how = "" if sample["as_tokens"] else ", before any chat template"
        rows = f"{sample['rows']:,} row{'s' if sample['rows'] != 1 else ''}"
        say(f"{sample['shape']}: {rows}; one of task {sample['task']!r}, > is trained on{how}:")
        for mark, side in (("|", "prompt"), (">", "completion")):
            say("\n".join(f"  {mark} {line}" for line in _cut(printable(sample[side])).split("\n")))


def _cut(text: str) -> str:
    if len(text) <= _SHOWN:
        return text
    half = _SHOWN // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters ...\n{text[-half:]}"
