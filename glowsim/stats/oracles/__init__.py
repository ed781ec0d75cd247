"""Exact answers beyond the single station of ``glowsim.stats.queueing``: one subject a file, pure functions."""
