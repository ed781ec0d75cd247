"""Running scenarios: replications with common random numbers, verdicts, runs on disk."""
