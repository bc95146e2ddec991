"""A library behind OpenAI's HTTP interface: many answers at once, each routed token by token."""
