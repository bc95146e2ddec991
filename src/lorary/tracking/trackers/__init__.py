"""One file for each place that trainings can be shown in."""
