"""Detectors, one a file; a registered class here is found by name and tested by its existence."""
