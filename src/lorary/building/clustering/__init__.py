"""Tasks grouped by what their experts or examples have in common."""
