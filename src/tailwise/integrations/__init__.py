"""The same detectors behind other interfaces: scikit-learn, PyOD, ONNX, experiment trackers.

This folder imports report, runs and below.
"""
