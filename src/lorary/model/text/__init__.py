"""Text <-> tokens, and the two questions a base answers about them: how likely, and what follows."""
