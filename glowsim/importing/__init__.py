"""From a user's own log to a scenario that runs: ``glowsim import``."""
