"""How experts are trained: the loop, what it is given and what it keeps."""
