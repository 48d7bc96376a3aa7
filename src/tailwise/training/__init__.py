"""From a detector, data and a weighting to a trained detector: one loop, and what surrounds it.

This folder imports weights, core and below; meets detectors by their protocols.
"""
