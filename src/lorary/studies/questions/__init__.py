"""One study a file; a file's name is the study's name."""
