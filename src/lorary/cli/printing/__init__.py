"""What commands print: data to stdout, words and progress to stderr."""
