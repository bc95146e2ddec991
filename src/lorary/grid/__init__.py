"""Many models by many metrics, one file of scores for each pair; workers share the cells."""
