"""From anomaly scores to weights of a training loss; the only place that reduces losses.

This folder imports core and below; knows no detector, source or calibration.
"""
