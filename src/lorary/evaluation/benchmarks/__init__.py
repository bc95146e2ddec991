"""One benchmark a file; the file name is the name on the command line."""
