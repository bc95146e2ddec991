"""Whole experiments: what is built and scored on any base and tasks, what comes out, and whether a claim holds."""
