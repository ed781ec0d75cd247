"""Experiments: how large, who won, and how sure; numbers in, numbers out.

- ``power``: how many units a difference needs to be found.
- ``means``, ``proportions``, ``ranks``: two arms compared at one look, at a size that was fixed beforehand.
- ``always_valid``: two arms compared at any look; ``group_sequential``: at looks that spend a budget of error.
- ``multiple``: several metrics or variants; ``sample_ratio``: whether the split was what it should have been.
- ``off_policy``: what another policy would have got, from what this one logged.
- ``bandits``: shares of the traffic by what each arm has earned.

The unit that was assigned is the unit of evidence: rows of one user or tenant go together as one.
"""
