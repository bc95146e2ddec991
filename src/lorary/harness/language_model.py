"""A base or a routed model as lm-evaluation-harness asks models: the three questions, on our own engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lorary.errors import EvaluationError, ModelError
from lorary.evaluation.sampling import Sampling
from lorary.model.base.base_model import BaseModel
from lorary.model.decoding.answer import Answering, answer_rows
from lorary.model.decoding.likelihood import judge_rows
from lorary.model.routed.routed_model import RoutedModel
from lorary.model.text.scoring import Judged
from lorary.model.text.tokens import Encoded, start_token
from lorary.tasks.example import Example

_WITHOUT_EFFECT = {"num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1.0, "use_cache": True}


class HarnessModel(TemplateLM):
    """Answers the harness: `lm_eval.simple_evaluate(model=HarnessModel(model), tasks=[...])`.

    Texts become tokens by the harness's rules, as in its own `HFLM`, so that scores are the same item by item. Routers
    see the text of the context, and the oracle the name of the harness's task.
    Differs: from `HFLM` in that sampled answers have seeds of their own, so that batches don't change them.
    """

    def __init__(self, model: BaseModel | RoutedModel) -> None:
        super().__init__()
        self.model = model
        self.base: BaseModel = model.base
        self.tokenizer = self.base.tokenizer
        self._caller = model.caller

    # ---- texts as tokens ------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        """What ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that nothing stands before."""
        return start_token(self.tokenizer)

    @property
    def max_length(self) -> int:
        """The longest text that is read."""
        return int(self.base.max_tokens)

    @property
    def tokenizer_name(self) -> str:
        """What its tokens are filed under, where the harness keeps requests."""
        return self.base.name.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: object) -> list[int]:
        """Give the tokens of a text; None: special ones as the tokenizer adds them, a start token only once."""
        start = self.tokenizer.decode([self.prefix_token_id])
        if add_special_tokens is None and start and string.startswith(start):
            add_special_tokens = False
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **options))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Write turns as the tokenizer's template does."""
        text = self.tokenizer.apply_chat_template(
            chat_history, tokenize=False, add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt, **self.base.template_options,
        )  # fmt: skip
        return str(text)

    # ---- the three questions --------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Give log p(continuation | context) and whether each of its tokens is the likeliest."""
        pairs = [self._pair(*request.args) for request in requests]
        examples = [_example(request, *request.args) for request in requests]
        return [(judged.nats, judged.is_likeliest) for judged in self._judge(pairs, examples)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Give log p(text), in windows of the longest text that is read."""
        pairs: list[tuple[list[int], list[int]]] = []
        examples: list[Example] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            (text,) = request.args
            windows = get_rolling_token_windows(
                self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            )
            found = list(map(make_disjoint_window, windows))
            pairs += found
            examples += [_example(request, "", text)] * len(found)
            owners += [number] * len(found)
        totals = [0.0] * len(requests)
        for owner, judged in zip(owners, self._judge(pairs, examples), strict=True):
            totals[owner] += judged.nats
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer each context up to the texts it is to stop at. Raises E-EVAL for options that aren't known here."""
        groups: dict[_How, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(_how(request.args[1]), []).append(number)
        found: dict[int, str] = {}
        for how, numbers in groups.items():
            found |= zip(numbers, self._answers([requests[i] for i in numbers], how, numbers), strict=True)
        return [found[number] for number in range(len(requests))]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        pairs = [(before, after) for _, before, after in requests]
        examples = [Example(*(texts or ("", ""))) for texts, _, _ in requests]
        return [(judged.nats, judged.is_likeliest) for judged in self._judge(pairs, examples)]

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if context:
            before, after = self._encode_pair(context, continuation)
            return before, after
        after = self.tok_encode(continuation, add_special_tokens=False)
        if after[:1] == [self.prefix_token_id]:
            return after[:1], after[1:]
        return [self.prefix_token_id], after

    def _judge(self, pairs: Sequence[tuple[list[int], list[int]]], examples: Sequence[Example]) -> list[Judged]:
        rows = [self._row(*pair, example) for pair, example in zip(pairs, examples, strict=True)]
        return judge_rows(self.base, rows, examples, self._caller)

    def _row(self, before: Sequence[int], after: Sequence[int], example: Example) -> Encoded:
        """Keep what is read and one token more, which is foreseen only."""
        if not after or len(after) > self.max_length:
            what = f"a continuation of task {example.task!r} has {len(after)} tokens, limit 1 to {self.max_length}."
            raise ModelError("E-LENGTH", what, f"It follows {example.prompt[-40:]!r}.")
        n_cut = max(0, len(before) + len(after) - self.max_length - 1)
        return Encoded(tuple(before[n_cut:]), tuple(after), n_cut)

    def _answers(self, requests: Sequence[Instance], how: "_How", seeds: Sequence[int]) -> list[str]:
        room = self.max_length - how.max_new_tokens
        if room < 1:
            what = f"max_gen_toks={how.max_new_tokens}, but this base reads {self.max_length} tokens in all."
            raise ModelError("E-LENGTH", what, "Give the task a lower max_gen_toks in its generation_kwargs.")
        rows = [Encoded(tuple(self.tok_encode(request.args[0])[-room:]), ()) for request in requests]
        examples = [_example(request, request.args[0], "") for request in requests]
        sampling = [how.sampling(seed) for seed in seeds] if how.temperature else []
        wanted = Answering(how.max_new_tokens, how.until, sampling, strip=False)
        return answer_rows(self.base, rows, examples, self._caller, wanted)


@dataclass(frozen=True)
class _How:
    """How answers are made. temperature 0: greedily."""

    until: tuple[str, ...]
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int

    def sampling(self, seed: int) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.top_k, seed)


def _how(options: Mapping[str, Any]) -> _How:
    """Read a task's generation_kwargs. Raises E-EVAL for those that would be without effect here."""
    given = dict(normalize_gen_kwargs(dict(options)))
    until = given.pop("until", [])
    sampled = bool(given.pop("do_sample", False))
    temperature = float(given.pop("temperature", 0.0) or 0.0)
    how = _How(
        tuple(filter(None, [until] if isinstance(until, str) else until)), int(given.pop("max_gen_toks")),
        temperature if sampled else 0.0, float(given.pop("top_p", 1.0) or 1.0), int(given.pop("top_k", 0) or 0),
    )  # fmt: skip
    for name, value in given.items():
        if name not in _WITHOUT_EFFECT or value != _WITHOUT_EFFECT[name]:
            what = f"generation_kwargs: {name}={value!r} is not known here."
            raise EvaluationError("E-EVAL", what, "Known: until, max_gen_toks, do_sample, temperature, top_p, top_k.")
    return how


def _example(request: Instance, context: str, continuation: str) -> Example:
    """Say what the router is told of a request."""
    return Example(context, continuation, request.task_name or "")
