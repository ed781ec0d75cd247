"""Which variant a request gets, and when a variant gets more of them or none."""
