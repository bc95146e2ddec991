"""Bytes and files: what is read is judged first, what is written is there whole or not at all."""
