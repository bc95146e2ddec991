"""One router per file; the file's name is the router's name."""
