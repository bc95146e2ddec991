"""Text in, examples out; knows no tokens."""
