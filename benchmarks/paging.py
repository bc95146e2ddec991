"""Thousands of experts: time to open, memory, and tokens a second against the hit rate.

    OMP_NUM_THREADS=1 python benchmarks/paging.py [1000 10000]

Synthetic experts of rank 4 on the attention layers of a two-layer model 64 wide (8 sites, 16 KiB of weights each),
Arrow with top_k = 4, 24 random prompts of 16 tokens, 16 new tokens each. All times are of the processor, one thread.
"whole": the hit rate that the same requests would have had, under the same budget, with whole experts as the unit.
"""

import gc
import json
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save
from transformers import AutoModelForCausalLM, LlamaConfig

from lorary.adapters.lora import LoRA
from lorary.hashing import hash_file
from lorary.library.adapter.provenance import Provenance
from lorary.library.adapter.site_keys import PREFIX
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.paging import Pager
from lorary.model.routed.route import route
from lorary.testing.pico import pico_tokenizer

WIDTH, RANK, N_PROMPTS, N_NEW = 64, 4, 24, 16


def main() -> None:
    torch.set_num_threads(1)
    for n in [int(word) for word in sys.argv[1:]] or [1000, 10000]:
        with tempfile.TemporaryDirectory() as folder:
            measure(n, Path(folder) / "lib")


def measure(n: int, path: Path) -> None:
    base = make_base()
    print(f"\n{n} experts: written in {seconds(lambda: make_library(path, base, n)):.1f} s")
    library, opened = timed(lambda: Library.open(path))
    whole = sum(expert.n_parameters * 4 for expert in library.values())
    print(f"weights {whole / 2**20:.0f} MiB; Library.open {opened:.2f} s")
    with_fit = seconds(lambda: route(base, library, "arrow", memory=whole).detach())
    before = anonymous()
    model, fetched = timed(lambda: route(base, library, "arrow", memory=whole))
    print(f"route, paged: {with_fit:.2f} s with fitting, {fetched:.2f} s without; +{anonymous() - before:.0f} MiB")
    model.detach()
    del model
    before = anonymous()
    model, resident = timed(lambda: route(base, Library.open(path), "arrow"))
    print(f"route, resident: {resident:.2f} s; +{anonymous() - before:.0f} MiB")
    speed = generate(model)
    model.detach()
    del model
    print(f"{'budget':>10}  {'hit rate':>8}  {'whole':>6}  {'tokens/s':>8}  {'+MiB':>6}")
    print(f"{'resident':>10}  {'':>8}  {'':>6}  {speed:8.1f}")
    for share in (1, 1 / 4, 1 / 16, 1 / 64):
        run(base, library, int(whole * share), f"{share:.1%}")


def run(base: BaseModel, library: Library, budget: int, shown: str) -> None:
    requests: list[tuple[object, str]] = []
    get = Pager.get

    def recorded(self, expert, site):
        requests.append((expert, site))
        return get(self, expert, site)

    before = anonymous()
    with route(base, library, "arrow", memory=budget) as model:
        Pager.get = recorded
        try:
            generate(model)  # warm
            first, since = model.paging, len(requests)
            speed = generate(model)
            last = model.paging
        finally:
            Pager.get = get
        used = anonymous() - before
    rate = (last.hits - first.hits) / max(1, last.hits + last.misses - first.hits - first.misses)
    n_sites = len({site for _, site in requests})
    n_units = budget // (RANK * 2 * WIDTH * 4)
    print(f"{shown:>10}  {rate:8.3f}  {hit_rate(requests, since, n_units // n_sites):6.3f}  {speed:8.1f}  {used:6.0f}")


def hit_rate(requests: list[tuple[object, str]], since: int, n_experts: int) -> float:
    """Replay requests, from `since` on counted, through an LRU of whole experts."""
    held: OrderedDict[object, None] = OrderedDict()
    hits = 0
    for i, (expert, _) in enumerate(requests):
        hits += expert in held and i >= since
        held[expert] = None
        held.move_to_end(expert)
        if len(held) > n_experts:
            held.popitem(last=False)
    return hits / (len(requests) - since)


def generate(model) -> float:
    """Answer the prompts one by one; tokens a second of the processor's time."""
    prompts = torch.randint(2, 258, (N_PROMPTS, 1, 16), generator=torch.Generator().manual_seed(1))
    options = {"max_new_tokens": N_NEW, "min_new_tokens": N_NEW, "do_sample": False}
    start = time.process_time()
    for prompt in prompts:
        model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
    return N_PROMPTS * N_NEW / (time.process_time() - start)


def make_base() -> BaseModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, num_key_value_heads=4, vocab_size=258, initializer_range=0.3, pad_token_id=0)
    return BaseModel(AutoModelForCausalLM.from_config(config), pico_tokenizer(), "synthetic")


def make_library(path: Path, base: BaseModel, n: int) -> None:
    """Write experts where a library has them; adding them one by one would write its card as often."""
    library, kind = Library.create(path, base=base.fingerprint), LoRA(rank=RANK)
    sites = base.target_sites(["attention"])
    config = json.dumps({"base_model_name_or_path": base.name, **kind.peft_config([site.name for site in sites])})
    generator = torch.Generator().manual_seed(0)
    for i in range(n):
        directory = library.layout.expert(f"e{i:05}")
        directory.mkdir(parents=True)
        tensors = {}
        for site in sites:
            tensors[f"{PREFIX}{site.name}.lora_A.weight"] = torch.randn(RANK, site.d_in, generator=generator) * 0.2
            tensors[f"{PREFIX}{site.name}.lora_B.weight"] = torch.randn(site.d_out, RANK, generator=generator) * 0.2
        (directory / "adapter_model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
        (directory / "adapter_config.json").write_text(config)
    time.sleep(0.05)  # so that expert.json is younger than the weights by any clock
    for i in range(n):
        directory = library.layout.expert(f"e{i:05}")
        made = Provenance(weights_sha256=hash_file(directory / "adapter_model.safetensors"), tasks=(f"t{i}",))
        (directory / "expert.json").write_bytes(made.to_json())


def timed(work):
    start = time.process_time()
    found = work()
    return found, time.process_time() - start


def seconds(work) -> float:
    return timed(work)[1]


def anonymous() -> float:
    """Private memory of this process in MiB; mapped files are not in it."""
    gc.collect()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
