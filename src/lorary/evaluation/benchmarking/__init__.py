"""What benchmarks are made of: their contract, questions with options, where their data is found, and one mean."""
