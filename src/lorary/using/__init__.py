"""A library put to use: adapters taken into it, and whatever can be asked opened; what every front door calls."""
