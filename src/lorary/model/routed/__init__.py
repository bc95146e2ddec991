"""A base with a library routed into it, as users hold it."""
