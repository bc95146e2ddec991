"""One adapter directory, judged and described without a tensor."""
