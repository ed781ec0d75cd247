"""Beside the traffic: ``glowsim serve --advise`` follows a log and load reports, recommends, and touches nothing."""
