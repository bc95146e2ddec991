"""Examples on disk, so that no process holds them: the file, the sequence that reads it, and the cache they are in."""
