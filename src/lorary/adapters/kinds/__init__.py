"""One form of adapter per file; the file's name is the kind's name."""
