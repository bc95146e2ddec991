"""Small programs from a sentence."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lorary.errors import EvaluationError
from lorary.evaluation.benchmarking.code import CodeBenchmark
from lorary.evaluation.benchmarking.few_shot import prefix_of, take_shots
from lorary.evaluation.benchmarking.fields import filled
from lorary.evaluation.evaluators.pass_at_k import PassAtK
from lorary.options import require_count
from lorary.tasks.example import Example, short
from lorary.tasks.rows.fields import Row, row_error, texts

_FIRST, _LAST = 11, 510
"""The numbers of the test part; 1 to 10 are there for prompts, those above to train on."""
_ASK = (
    "You are an expert Python programmer, and here is your task: {} Your code should pass these tests:\n\n{}\n[BEGIN]\n"
)


@dataclass(frozen=True)
class MBPP(CodeBenchmark):
    """Python functions, written from a sentence and the tests that they must pass, and run in a sandbox.

    Rows: `task_id`, `text` or `prompt`, `code`, `test_list`, and perhaps `test_setup_code` or `test_imports`, as on the
    Hub, in full or sanitized. Rows of the numbers 11 to 510 are scored, the test part. The prompt is the header of the
    reference code, up to its first colon, and the sentence with the tests as its description, indented by a tab
    ("paper"); or sentence and tests after three solved ones ("harness").
    Source: Austin et al. 2021 (2108.07732); microsoft/mttl, which takes the sanitized rows.
    Differs: setup code and imports stand before the tests, without which some can't pass; mttl leaves them out, and
    carriage returns in. The harness's solved examples are rows 2, 3 and 4, if they are there, else the first to train
    on, else the first of all, which then aren't scored. See `pass_at_k` for how programs run.
    """

    shots: int = 3
    """Solved examples in the harness's prompts."""
    title: ClassVar[str] = "MBPP"
    part: ClassVar[str] = "test"
    places: ClassVar[tuple[str, ...]] = ("mbpp/sanitized",)
    hub: ClassVar[tuple[str, ...]] = ("hf://datasets/google-research-datasets/mbpp/sanitized:test",)
    harness: ClassVar[PassAtK] = PassAtK(answer="fenced", max_new_tokens=256, stop=("[DONE]",))

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        require_count("mbpp: shots", self.shots, least=0)

    def examples(self, rows: Sequence[Row], train: Sequence[Row] = ()) -> tuple[Example, ...]:
        """Ask for each function of the test part. Raises E-DATA, E-EVAL where none of it is there."""
        numbered = [(_number(row), row) for row in rows]
        scored = [row for number, row in numbered if _FIRST <= number <= _LAST]
        if not scored:
            what = f"{rows[0].place}: {self.name}: no row has a task_id from {_FIRST} to {_LAST}, the test part."
            raise EvaluationError("E-EVAL", what, "Give the rows of that part.")
        if self.prompts == "paper":
            return tuple(map(self._completed, scored))
        shown = [row for number, row in numbered if 1 < number < _FIRST][: self.shots]
        if len(shown) < self.shots:
            shown, scored = map(list, take_shots(self.name, scored, train, self.shots))
        before = prefix_of([f"{_asked(row)}{filled(row, 'code')}\n[DONE]" for row in shown])
        return tuple(Example(before + _asked(row), filled(row, "code"), self.name, tests=_tests(row)) for row in scored)

    def _completed(self, row: Row) -> Example:
        header, _, rest = filled(row, "code").replace("\r\n", "\n").partition(":")
        described = "\n\t".join((_sentence(row), *texts(row, "test_list")))
        prompt = f'{header}:\n\t"""\n\t{described}\n\t"""\n'
        return Example(prompt, _by_tabs(rest), self.name, tests=_tests(row))


def _number(row: Row) -> int:
    value = row.values.get("task_id")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise row_error(row, f"'task_id' is {short(value)}, expected a number from 1.", "Add it: it says the part.")
    return value


def _sentence(row: Row) -> str:
    return filled(row, "text" if row.values.get("text") is not None else "prompt")


def _asked(row: Row) -> str:
    return _ASK.format(_sentence(row), "\n".join(texts(row, "test_list")[:3]))


def _tests(row: Row) -> str:
    before = [key for key in ("test_setup_code", "test_imports") if row.values.get(key)]
    return "\n".join(text for key in (*before, "test_list") for text in texts(row, key))


def _by_tabs(rest: str) -> str:
    """Indent the body of a function as its prompt is, by a tab; what follows the function stays as it is."""
    lines = [line for line in rest.lstrip(" ").removeprefix("\n").split("\n") if not line.lstrip().startswith("#")]
    end = next((i for i, line in enumerate(lines) if i and line.strip() and not line[0].isspace()), len(lines))
    body = textwrap.dedent("\n".join(map(_by_blanks, lines[:end])))
    return "\n".join((textwrap.indent(body, "\t"), *lines[end:]))


def _by_blanks(line: str) -> str:
    """Write the tabs of an indent as blanks, as Python counts them: some rows mix both."""
    bare = line.lstrip()
    return line[: len(line) - len(bare)].expandtabs() + bare
