"""Where Trackio keeps its files in a test."""


def give_trackio(place, monkeypatch):
    """Let Trackio keep them at a place: it asks the environment once, when it is imported."""
    from trackio import sqlite_storage

    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", place)
