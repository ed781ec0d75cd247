"""Two variants on the same recorded tasks: what a fleet does that is too quiet for a canary.

The task is the unit. A pair is *lost* where only the variant failed, *won* where only the baseline did, and tied
otherwise; ties say nothing of who is better.
"""
