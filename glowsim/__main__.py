"""python -m glowsim."""

from glowsim.cli import main

main()
