"""Libraries, rows and claims that the studies of the paper have in common."""
