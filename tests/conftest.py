"""Hypothesis looks for the same examples every time, and is not hurried on a busy machine."""

from hypothesis import settings

settings.register_profile("glowsim", deadline=None, derandomize=True)
settings.load_profile("glowsim")
