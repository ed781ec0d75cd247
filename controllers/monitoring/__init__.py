"""Whether objectives are kept, and when to tell somebody."""
