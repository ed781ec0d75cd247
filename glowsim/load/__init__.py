"""A scenario's workload against a real target over HTTP: open or closed loop, timed from the scheduled send."""
