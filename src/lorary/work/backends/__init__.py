"""One place where workers may run per file; the file's name is the backend's name."""
