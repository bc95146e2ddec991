"""Experts made of a library's experts, without training."""
