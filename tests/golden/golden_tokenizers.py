"""Tokenizers of the shapes that real ones have, trained in memory on a few sentences."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_TEXT = [
    "Question: What is the capital of France?\nAnswer: Paris",
    "Question: Where do they live? Answer: They live here, in a house.",
    "def f(x):\n    return x + 1",
    "Translate to French: hello world -> bonjour le monde",
]
SPECIAL = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<end_of_turn>",
    "<|end|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|user|>",
    "<|assistant|>",
]


def byte_level(*, prefix_blank: bool = False) -> Tokenizer:
    """As GPT-2 and Llama 3: bytes, merged; blanks go with the word behind them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_blank)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(tokenizer, trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet))
    return tokenizer


def sentence_piece(*, legacy: bool) -> Tokenizer:
    """As Llama 2: blanks are letters, and one stands before a text's first word."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, unk_token="<pad>"))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    alphabet = [chr(c) for c in range(33, 127)] + ["\n", "▁"]
    _train(tokenizer, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet))
    return tokenizer


def _train(tokenizer: Tokenizer, trainer: object) -> None:
    tokenizer.train_from_iterator(_TEXT * 4, trainer)


def make(shape: str) -> PreTrainedTokenizerFast:
    """Make one of SHAPES."""
    tokenizer = SHAPES[shape]()
    if "start" in shape:
        start = ("<bos>", tokenizer.token_to_id("<bos>"))
        tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[start])
    bos = "<bos>" if "start" in shape else None
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token=bos, padding_side="left",
        additional_special_tokens=SPECIAL[3:],
    )  # fmt: skip


SHAPES = {
    "bytes": byte_level,
    "bytes, a start token": byte_level,
    "bytes, a blank before": lambda: byte_level(prefix_blank=True),
    "sentence piece, a start token": lambda: sentence_piece(legacy=False),
    "sentence piece, legacy, a start token": lambda: sentence_piece(legacy=True),
}
