"""How long a text a base takes, and where its answers end."""

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM

from lorary.errors import OptionError
from lorary.model.base.base_model import BaseModel, load_base
from lorary.model.routed.route import route
from lorary.model.text.text_limits import longest_text, stop_tokens
from lorary.tasks.example import Example, Message
from lorary.testing.pico import pico_base, pico_tokenizer, random_library


def chain(*tokens, tokenizer, eos=1, stops=None, reads=64):
    """Make a model that says the tokens in order, each after the one before, the last for ever."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 16}
    config = LlamaConfig(
        **sizes, vocab_size=len(tokenizer), max_position_embeddings=reads, eos_token_id=eos, tie_word_embeddings=False
    )
    hf = LlamaForCausalLM(config)
    ids = [t if isinstance(t, int) else tokenizer.convert_tokens_to_ids(t) for t in tokens]
    with torch.no_grad():
        layer = hf.model.layers[0]
        for weight in (hf.model.embed_tokens, hf.lm_head, layer.self_attn.o_proj, layer.mlp.down_proj):
            weight.weight.zero_()
        for place, (one, following) in enumerate(zip(ids, [*ids[1:], ids[-1]], strict=True)):
            hf.model.embed_tokens.weight[one, place] = 10.0
            hf.lm_head.weight[following, place] = 10.0
    hf.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=0)
    return hf


def tokenizer_with(*special):
    tokenizer = pico_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


def test_answers_end_at_every_stop_token_of_the_base():
    tokenizer = tokenizer_with("<end_of_turn>")
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    hf = chain("Q", "A", end, "Z", tokenizer=tokenizer, stops=[1, end])
    base = BaseModel(hf, tokenizer, "chain")
    assert base.stop_tokens == [1, end]
    assert base.generate_text([Example("Q", "")], max_new_tokens=6) == ["A"]
    unstopped = BaseModel(chain("Q", "A", end, "Z", tokenizer=tokenizer), tokenizer, "chain")
    assert unstopped.generate_text([Example("Q", "")], max_new_tokens=6) == ["AZZZZ"]


@pytest.mark.parametrize(
    ("named", "found"), [(None, [1]), (5, [1, 5]), ([7, 1, 5], [1, 7, 5]), ([7, 9999, -1], [1, 7])]
)
def test_stop_tokens_are_the_base_s_and_the_tokenizer_s(named, found):
    base = pico_base()
    base.hf.generation_config = GenerationConfig(eos_token_id=named)
    assert stop_tokens(base.hf, base.tokenizer) == found


def test_a_chat_ends_at_its_template_s_end_of_turn_and_a_plain_text_doesn_t():
    tokenizer = tokenizer_with("<|im_end|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}Q{% endif %}"
    )
    hf = chain("Q", "A", "<|im_end|>", "Z", tokenizer=tokenizer)
    base = BaseModel(hf, tokenizer, "chain")
    chat, plain = Example("hi", "", messages=(Message("user", "hi"),)), Example("Q", "")
    assert base.generate_text([chat], max_new_tokens=6) == ["A"]
    assert base.generate_text([plain], max_new_tokens=6) == ["AZZZZ"]


def test_answers_end_before_the_first_stop_text(tmp_path):
    tokenizer = pico_tokenizer()
    base = BaseModel(chain("Q", "a", "b", "c", "d", "e", tokenizer=tokenizer), tokenizer, "chain")
    for stop, text in (["cd"], "ab"), (["zz", "d"], "abc"), ([], "abcdeeee"), (["e", "b"], "a"):
        assert base.generate_text([Example("Q", "")], max_new_tokens=8, stop=stop) == [text]
    with route(base, random_library(tmp_path / "lib", base, 2), "uniform") as model:
        whole = model.generate_text([Example("Q", "")], max_new_tokens=8)[0]
        assert model.generate_text([Example("Q", "")], max_new_tokens=8, stop=[whole[2:4]]) == [whole[:2]]
    with pytest.raises(OptionError, match="stop"):
        base.generate_text([Example("Q", "")], max_new_tokens=8, stop="cd")


def test_the_longest_text_is_what_the_base_reads(tmp_path):
    base = pico_base()
    assert base.max_tokens == 256
    base.hf.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    assert load_base(str(tmp_path), dtype="float32", max_tokens=20).max_tokens == 20
    for wrong in (0, 257, "20", True):
        with pytest.raises(OptionError, match="max_tokens"):
            load_base(str(tmp_path), dtype="float32", max_tokens=wrong)
    assert pico_base("gpt2").max_tokens == 256


def test_a_base_that_names_no_longest_text_reads_all_its_tokenizer_does():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "vocab_size": 258}
    hf, tokenizer = MambaForCausalLM(MambaConfig(**sizes)), pico_tokenizer()
    assert longest_text(hf, tokenizer, None) == 1 << 20
    tokenizer.model_max_length = 500
    assert longest_text(hf, tokenizer, None) == 500


def test_options_of_the_chat_template_are_the_base_s_and_the_example_s():
    base = pico_base()
    base.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }};{% endfor %}{% if add_generation_prompt %}{{ mood }}:{% endif %}"
    )
    example = Example("hi", "ok", messages=(Message("user", "hi"),))
    kind = BaseModel(base.hf, base.tokenizer, "pico", template_options={"mood": "kind"})
    own = Example("hi", "ok", messages=(Message("user", "hi"),), template={"mood": "stern"})
    texts = [kind.tokenizer.decode(list(row.prompt)) for row in kind.encode([example, own])]
    assert texts == ["hi;kind:", "hi;stern:"]
    assert kind.identity["reads"] != base.identity["reads"]
