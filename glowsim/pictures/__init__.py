"""A picture of each family of controllers under one standard load: a ramp, a step and a burst."""
