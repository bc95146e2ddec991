"""Hidden state in, weights over experts out; no files, no transformers."""
