"""Model + tasks -> scores; imports no torch."""
