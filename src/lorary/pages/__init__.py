"""Pages of HTML: one template for all, colours, and the inspector; text that isn't ours is never HTML."""
