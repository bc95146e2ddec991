"""Tasks, and perhaps a library, -> a library."""
