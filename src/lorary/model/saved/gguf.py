"""A library under a static routing -> a LoRA that llama.cpp loads beside its base."""

import os
from collections.abc import Mapping
from pathlib import Path

from lorary.adapters.contract import Mix
from lorary.disk.arrival import check_target
from lorary.disk.processes import beside
from lorary.disk.reading import as_path
from lorary.disk.writing import ELSEWHERE, discard, disk_errors, sync
from lorary.errors import AdapterError, quote
from lorary.formats.gguf_lora import Shape, require_family, write_gguf
from lorary.library.adapter.expert import Expert
from lorary.model.base.base_model import BaseModel
from lorary.model.saved.export import UNIFORM, Shares, mix_experts
from lorary.model.sites import text_config
from lorary.options import require


def export_gguf(
    base: BaseModel, experts: Mapping[str, Expert], shares: str | Shares | Mapping[str, Shares] = UNIFORM, *,
    into: Path | str, mix: Mix = "factors", rank: int | None = None,
) -> Path:  # fmt: skip
    """Write one LoRA as a GGUF file, for llama.cpp: what `export` writes as a PEFT adapter.

    Of the base only the sizes count, so an outline of it will do. Arguments and errors: see `export`; further,
    E-FEATURE for a family or layer that llama.cpp has otherwise than is known here, E-TARGET, E-EXTRA without gguf.
    """
    require("base", base, BaseModel, "a base model", "Load one: load_base().")
    config = text_config(base.hf)
    require_family(config.model_type)
    path = as_path(into)
    check_target(path)
    mixed, members = mix_experts(experts, shares, mix, rank)
    if absent := next((site for site in mixed if site not in base.sites), None):
        raise AdapterError("E-TARGET", f"the base has no linear layer {absent!r}.", "Load the base of these experts.")
    heads = config.num_attention_heads
    shape = Shape(
        config.model_type, config.num_hidden_layers, heads, getattr(config, "num_key_value_heads", None) or heads
    )
    with disk_errors(quote(str(path), 200), ELSEWHERE):
        path.parent.mkdir(parents=True, exist_ok=True)
        stage = beside(path)
        try:
            write_gguf(stage, {site: m.weights for site, m in mixed.items()}, shape, name="+".join(members)[:100])
            sync(stage)
            os.replace(stage, path)
        finally:
            discard(stage)
    return path
