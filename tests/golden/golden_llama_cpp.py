"""llama.cpp itself, as the package xllamacpp has it."""

import xllamacpp


class LlamaCpp:
    """llama.cpp with a base, and perhaps one LoRA on it, in this process."""

    def __init__(self, model, lora=None):
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.warmup = str(model), 256, 1, False
        params.verbosity, params.cpuparams.n_threads = -1, 1
        # What is remembered of the prompt would be rounded to half the bits.
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if lora is not None:
            adapter = xllamacpp.CommonAdapterLoraInfo()
            adapter.path, adapter.scale = str(lora), 1.0
            params.lora_adapters = [adapter]
        self._server = xllamacpp.Server(params)

    def go_on(self, prompt, n_tokens, *, n_probs=258):
        """Go on with token ids, greedily; gives the ids, and the log-probability of each candidate at each."""
        asked = {"prompt": prompt, "n_predict": n_tokens, "temperature": 0, "n_probs": n_probs, "cache_prompt": False}
        told = self._server.handle_completions(asked | {"ignore_eos": True})["choices"][0]["logprobs"]["content"]
        said = [{one["id"]: one["logprob"] for one in step["top_logprobs"]} for step in told]
        return [step["id"] for step in told], said
