"""A routed model, or a library in fixed shares, as files."""
