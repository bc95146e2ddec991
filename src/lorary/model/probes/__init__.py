"""Facts about data that routers and clusterers may ask a base for."""
