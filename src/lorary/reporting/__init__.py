"""Scores and traces made visible: tables, figures, one self-contained page."""
