"""Token by token: many rows at once, each sampled in its own way; rows join and leave between steps."""
