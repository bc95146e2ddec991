"""A model asked: one answer as it is made, a conversation, and files of prompts; what every front door calls."""
