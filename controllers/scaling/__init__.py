"""How many instances an agent has."""
