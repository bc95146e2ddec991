"""For one commit."""

from lorary.adapters.lora import LoRA as LoRA
