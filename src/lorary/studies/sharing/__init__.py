"""How workers share a study: its libraries and measures first, then its scores."""
