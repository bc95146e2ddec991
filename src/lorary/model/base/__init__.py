"""The frozen language model: loaded, checked, named, and its layers listed."""
