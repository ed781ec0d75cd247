"""Whether a request is within its limits."""
