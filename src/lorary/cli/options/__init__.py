"""Options of commands: those that several share, in groups, with what a shell offers for them."""
