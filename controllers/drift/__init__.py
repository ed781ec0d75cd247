"""Whether a metric has moved."""
