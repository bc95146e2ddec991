"""Experts in a base's layers for as long as they are needed, and what follows a call through them."""
