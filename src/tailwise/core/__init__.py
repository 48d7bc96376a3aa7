"""The seam: data, samples' modality and surroundings, problems, detectors, names, inference.

This folder imports errors and numerics.
"""
