"""Which instance serves a request."""
