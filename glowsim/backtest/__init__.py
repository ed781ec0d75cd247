"""A scenario fitted on the first part of a log, judged on the last: ``glowsim backtest``."""
