"""What is routed into a base: experts, router and its state, in memory and on disk."""
