"""Recorded workloads: read from the formats that people have, described, fitted, and replayed."""
