"""Whole experiments, one a file: what is run, what comes out."""
