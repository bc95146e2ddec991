"""Jobs and their results on disk, and many processes and hosts at them; knows nothing of what they make."""
