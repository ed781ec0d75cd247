"""The simulated world: SimPy callbacks around the same control plane that runs live."""
