"""What a scenario's policies were found to hold under, written down so that the daemon can ask for it."""
