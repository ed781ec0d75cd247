"""Drift detectors over many streams at once: thresholds that keep a run length, and delays at those."""
