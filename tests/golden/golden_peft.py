"""What the golden tests share: adapters made by PEFT, and answers to compare."""

import warnings
from contextlib import contextmanager

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from lorary.library.library import Library
from lorary.model.routed.route import route
from lorary.testing.pico import pico_base

ATTENTION = {"gpt2": ["c_attn", "c_proj"], "phi": ["q_proj", "k_proj", "v_proj", "dense"]}


@contextmanager
def peft_only(*harmless):
    """Let PEFT's warnings be errors (a missing key is one to it), but those that don't concern the adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for text in (r"`is_gradient_checkpointing` is deprecated", *harmless):
            warnings.filterwarnings("ignore", text)
        yield


def make_adapter(directory, architecture="llama", *, seed=0, initial=None, **options):
    """Let PEFT make an adapter with random factors; gives the answer of PEFT's own model.

    initial: where the adapter as it began is put, so that PEFT saves plain LoRA whatever it began with.
    """
    names = ATTENTION.get(architecture, ["q_proj", "k_proj", "v_proj", "o_proj"])
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": names, "task_type": "CAUSAL_LM"} | options)
    with peft_only("`lora_bias=True` was passed but the targeted layer", "lora with eva initialization used with"):
        model = get_peft_model(pico_base(architecture).hf, config)
        if initial is not None:
            model.save_pretrained(initial)
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = torch.randn(p.shape, generator=generator) * 0.2
    changes = "(PiSSA|OLoRA) changes the base weights"
    with peft_only("Could not find a config file", "Setting `save_embedding_layers`", ".*lora_B.bias", changes):
        model.save_pretrained(directory, path_initial_model_for_weight_conversion=initial)
    return answer(model)


def ids():
    return torch.randint(2, 258, (2, 9), generator=torch.Generator().manual_seed(7))


def answer(model, **options):
    with torch.inference_mode():
        return model(input_ids=ids(), **options).logits


def peft_answer(architecture, directory, **options):
    return answer(peft_open(architecture, directory, **options))


def peft_open(architecture, directory, **options):
    """Let PEFT open an adapter on a fresh copy of the base; nothing may be missing."""
    with peft_only("fan_in_fan_out is set to False but the target module is `Conv1D`"):
        return PeftModel.from_pretrained(pico_base(architecture).hf, directory, **options)


def library_of(path, base, adapters):
    """Add adapter directories to a new library, as a user does."""
    library = Library.create(path, base=base.fingerprint)
    facts = {name: (site.d_in, site.d_out) for name, site in base.sites.items()}
    for name, directory in adapters.items():
        library.add(directory, name, base=facts)
    return library


def routed_answer(base, library, router="uniform", *, mix="outputs"):
    with route(base, library, router, mix=mix) as model, torch.inference_mode():
        return model(ids()).logits


def assert_same(found, expected, *, atol=1e-5):
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-5)
