"""The chat template that an adapter brings: kept with it, told of, and never the reason why anything breaks."""

import json
import os

import pytest
from library_pico import write_adapter

from lorary.errors import LoraryError
from lorary.library.adapter.chat_template import judge_template, read_template
from lorary.library.adapter.opened import open_adapter
from lorary.library.library import Library

TEXT = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"


def look_for_template(directory, expert, own):
    with open_adapter(directory) as adapter:
        return judge_template(adapter.template, expert, own)


def in_tokenizer(directory, value):
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": value, "eos_token": "</s>"}))


WAYS = {
    "a file": lambda d: (d / "chat_template.jinja").write_text(TEXT),
    "in the tokenizer": lambda d: in_tokenizer(d, TEXT),
    "one of several": lambda d: in_tokenizer(d, [{"name": "a"}, {"name": "default", "template": TEXT}]),
    "a file before the tokenizer": lambda d: (in_tokenizer(d, "x"), (d / "chat_template.jinja").write_text(TEXT)),
}  # fmt: skip
NONE = {
    "nothing": lambda d: None,
    "a tokenizer without": lambda d: in_tokenizer(d, None),
    "an empty file": lambda d: (d / "chat_template.jinja").write_text(""),
    "no text": lambda d: in_tokenizer(d, {"a": [1]}),
    "none is default": lambda d: in_tokenizer(d, [{"name": "rag", "template": "x"}, 3, None]),
    "of no type": lambda d: in_tokenizer(d, [{"name": "default", "template": 3}]),
}
BROKEN = {
    "not UTF-8": lambda d: (d / "chat_template.jinja").write_bytes(b"\xff\xfe"),
    "huge": lambda d: (d / "chat_template.jinja").write_bytes(b"x" * 1_000_001),
    "a pipe": lambda d: os.mkfifo(d / "chat_template.jinja"),
    "a link": lambda d: (d / "chat_template.jinja").symlink_to("/etc/hostname"),
    "a lost link": lambda d: (d / "chat_template.jinja").symlink_to("/no/where"),
    "a directory": lambda d: (d / "chat_template.jinja").mkdir(),
    "no JSON": lambda d: (d / "tokenizer_config.json").write_text("{"),
    "a list": lambda d: (d / "tokenizer_config.json").write_text("[]"),
    "deep": lambda d: (d / "tokenizer_config.json").write_text("[" * 100_000),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_kept_with_the_expert_and_told_of(way, tmp_path):
    source = write_adapter(tmp_path / "chat")
    WAYS[way](source)
    expert = Library.create(tmp_path / "lib").add(source, "chat")
    assert (expert.directory / "chat_template.jinja").read_text() == TEXT
    copied = expert.copy_to(tmp_path / "copy")
    assert read_template(copied) == TEXT
    (finding,) = look_for_template(source, expert.directory, None)
    assert (finding.code, finding.level) == ("W-CHAT", "warning")
    assert finding.hint.endswith(f"--chat-template {str(expert.directory / 'chat_template.jinja')!r}.")
    assert look_for_template(source, expert.directory, TEXT) == []


@pytest.mark.parametrize("way", NONE)
def test_where_there_is_none_nothing_is_told(way, tmp_path):
    source = write_adapter(tmp_path / "plain")
    NONE[way](source)
    expert = Library.create(tmp_path / "lib").add(source, "plain")
    assert not (expert.directory / "chat_template.jinja").exists()
    assert look_for_template(source, expert.directory, None) == []


@pytest.mark.parametrize("way", BROKEN)
def test_one_that_cannot_be_read_is_left_out_and_named(way, tmp_path):
    source = write_adapter(tmp_path / "odd")
    BROKEN[way](source)
    with pytest.raises(LoraryError, match="E-CHAT|E-PATH"):
        read_template(source)
    expert = Library.create(tmp_path / "lib").add(source, "odd")
    assert sorted(path.name for path in expert.directory.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "expert.json",
    ]  # fmt: skip
    (finding,) = look_for_template(source, expert.directory, None)
    assert finding.code == "W-CHAT"
    assert finding.message.startswith("the chat template that it brings is ignored: ") and finding.message.isprintable()
