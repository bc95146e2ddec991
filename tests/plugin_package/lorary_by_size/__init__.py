"""A router and a metric for lorary."""
