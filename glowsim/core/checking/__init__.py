"""What the checker is made of: the facts that a journal lacks, the picture it draws, checks of whole runs."""
