"""Detectors, one a file; a registered class here is found by name and tested by its existence.

This folder imports backbones, core and below; knows no source, weighting or calibration.
"""
