"""How much work an instance may have that fails, and whether failed work is tried again."""
