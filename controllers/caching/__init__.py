"""Which answers are kept, and for how long."""
