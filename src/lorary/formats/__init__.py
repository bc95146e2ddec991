"""Other people's formats: files <-> weights."""
