"""Detectors, one in each file; every class registered here has a name and is tested against the contracts.

This folder imports backbones, core and below; knows no source, weighting or calibration.
"""
