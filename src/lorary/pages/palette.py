"""Colours that people with any kind of colour vision can tell apart (Okabe and Ito 2008, black left out)."""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8A6FD1", "#B8A800")
OTHER = "#8C939A"
INK = "#1F2328"
FAINT = "#6B7280"
