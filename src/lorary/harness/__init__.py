"""lm-evaluation-harness: a routed model as it asks models, its runs over several routers, its results as our scores."""
