"""The base, with experts routed into it; the only folder that imports transformers."""
