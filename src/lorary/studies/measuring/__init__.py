"""What studies measure beside scores."""
