"""The mathematics of one adapted layer; torch, nothing else."""
