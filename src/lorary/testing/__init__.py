"""Tiny models and libraries, and the suites that every method must pass: for our tests and those of plug-ins."""
