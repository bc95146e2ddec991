"""Texts become the tokens that TRL trains on and lm-evaluation-harness scores, in those programs themselves."""

import warnings

import pytest
import torch
from golden_tokenizers import SHAPES, make
from transformers import LlamaConfig, LlamaForCausalLM

from lorary.model.base.base_model import BaseModel
from lorary.model.text.tokens import encode
from lorary.tasks.example import Example, Message

TEMPLATES = {
    "gemma": "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else "
    "m['role']) + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "phi-3": "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    "llama-2": "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}",
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "qwen3": "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + m['content'] }}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{{ '<|im_end|>\n' }}{% else %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
}
CALL = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]

SEAMS = [
    ("Question: What is the capital of France?\nAnswer:", " Paris"),
    ("Question: What is the capital of France?\nAnswer: ", "Paris"),
    ("Answer:  ", "They live here"),
    ("def f(", "x):\n    return x"),
    ("They live ", "here"),
    ("Translate to French: hello\n", "bonjour"),
    ("<|user|>Hi<|assistant|>", "Yo"),
    ("12+", "3=15"),
]


def model_of(tokenizer):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=256, eos_token_id=1, pad_token_id=0, **sizes
    )
    return LlamaForCausalLM(config)


def trained_by_trl(tokenizer, rows, tmp_path):
    """Let TRL's trainer prepare rows: for each the ids that aren't trained on, and those that are."""
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    options = {"max_length": None, "report_to": [], "use_cpu": True, "bf16": False, "dataset_num_proc": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = datasets.Dataset.from_list(rows)
        arguments = trl.SFTConfig(output_dir=str(tmp_path), **options)
        trainer = trl.SFTTrainer(
            model=model_of(tokenizer), args=arguments, train_dataset=data, processing_class=tokenizer
        )
    found = []
    for row in trainer.train_dataset:
        n = sum(label == -100 for label in row["labels"])
        assert row["labels"][n:] == row["input_ids"][n:]
        found.append((row["input_ids"][:n], row["input_ids"][n:]))
    return found


def ours(tokenizer, examples):
    return [(list(row.prompt), list(row.completion)) for row in encode(tokenizer, examples, max_tokens=1000)]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_plain_text_is_trained_as_trl_does(shape, tmp_path):
    """But for blanks at a prompt's end, which TRL leaves there, and for tokens across the seam."""
    tokenizer = make(shape)
    pairs = [(p, c) for p, c in SEAMS if not p.endswith(" ") and p != "They live "]
    theirs = trained_by_trl(tokenizer, [{"prompt": p, "completion": c} for p, c in pairs], tmp_path)
    whole = [prompt == tokenizer(p)["input_ids"] for (prompt, _), (p, _) in zip(theirs, pairs, strict=True)]
    assert sum(whole) >= 3, "most seams lie between tokens"
    mine = ours(tokenizer, [Example(p, c) for p, c in pairs])
    for own, other, is_whole, (prompt, completion) in zip(mine, theirs, whole, pairs, strict=True):
        if is_whole:
            assert own == other
        assert tokenizer.decode(own[0] + own[1], skip_special_tokens=True).endswith(
            tokenizer.decode(tokenizer(prompt + completion)["input_ids"], skip_special_tokens=True)
        )


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_is_trained_as_trl_does(template, tmp_path):
    """But for the newline that some templates write after the end of turn: no answer comes that far."""
    tokenizer = make("bytes, a start token")
    tokenizer.chat_template = TEMPLATES[template]
    turns = [{"role": "user", "content": "Where do they live?"}]
    answer = {"role": "assistant", "content": "They live here."}
    ((prompt, completion),) = trained_by_trl(tokenizer, [{"prompt": turns, "completion": [answer]}], tmp_path)
    text = tokenizer.decode(completion)
    ((mine, trained),) = ours(tokenizer, [_example(turns, answer)])
    assert mine == prompt
    assert (tokenizer.decode(trained), trained) == (text.rstrip(), completion[: len(trained)])


@pytest.mark.slow
def test_tools_and_options_of_the_template_are_trained_as_trl_does(tmp_path):
    tokenizer = make("bytes")
    tokenizer.chat_template = TEMPLATES["qwen3"]
    turns = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "tool_calls": CALL},
        {"role": "tool", "content": "yes", "name": "weather"},
    ]
    answer = {"role": "assistant", "content": "Yes."}
    given = {"tools": TOOLS, "chat_template_kwargs": {"enable_thinking": False}}
    row = {"prompt": turns, "completion": [answer], **given}
    ((prompt, completion),) = trained_by_trl(tokenizer, [row], tmp_path)
    example = _example(turns, answer, template={"tools": TOOLS, "enable_thinking": False})
    ((mine, trained),) = ours(tokenizer, [example])
    assert mine == prompt
    assert trained == completion[: len(trained)]
    assert tokenizer.decode(trained) == "Yes.<|im_end|>"


def _example(turns, answer, **more):
    messages = tuple(
        Message(t["role"], t["content"], {k: t[k] for k in t if k not in ("role", "content")}) for t in turns
    )
    return Example("", answer["content"], messages=messages, **more)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_completions_are_scored_as_lm_evaluation_harness_does(shape):
    """But for the end of the answer, which is scored here, and for newlines at a prompt's end, which stay there."""
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    tokenizer = make(shape)
    hf = model_of(tokenizer).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judge = huggingface.HFLM(pretrained=hf, tokenizer=tokenizer, backend="causal", device="cpu", batch_size=1)
    base = BaseModel(hf, tokenizer, "pico")
    pairs = [(p, c) for p, c in SEAMS if not p.endswith("\n")]
    for prompt, completion in pairs:
        theirs = judge._encode_pair(prompt, completion + "<eos>")
        ((mine, trained),) = ours(tokenizer, [Example(prompt, completion)])
        if len(theirs[0]) == len(mine) and [*theirs[0], *theirs[1]] == [*mine, *trained]:
            (nats,) = base.log_likelihood([Example(prompt, completion)])
            assert nats.nats == pytest.approx(
                judge._loglikelihood_tokens([((prompt, completion), *theirs)])[0][0], abs=1e-3
            )
        else:  # a token lies across the seam, where the harness begins the completion within it
            assert tokenizer(prompt.rstrip())["input_ids"] == mine
            assert tokenizer(prompt + completion)["input_ids"][: len(mine)] != mine
    # Blanks at the end of the prompt are the completion's in both.
    assert ours(tokenizer, [Example("Answer: ", "Paris")]) == ours(tokenizer, [Example("Answer:", " Paris")])
    assert judge._encode_pair("Answer: ", "Paris") == judge._encode_pair("Answer:", " Paris")
