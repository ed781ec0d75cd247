"""How many tokens go in and may come out."""
