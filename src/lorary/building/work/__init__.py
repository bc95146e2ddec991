"""Many processes and hosts at one build: who does what, how it is seen from outside, and where workers run."""
