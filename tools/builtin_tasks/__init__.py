"""The recipes of the built-in tasks: one file a family, one function a task."""
