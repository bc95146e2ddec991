"""One way to build a library per file; the file's name is the builder's name."""
