"""Directories and bytes; knows no tensors and imports no torch."""
