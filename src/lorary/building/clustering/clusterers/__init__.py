"""One way to cluster tasks per file; the file's name is the clusterer's name."""
