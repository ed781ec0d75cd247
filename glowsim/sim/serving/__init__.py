"""What an instance does with the work that it is given."""
