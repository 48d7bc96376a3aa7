"""What a score means for a new normal: thresholds, p-values, clusters, maps, drift.

This folder imports core and below; knows no detector, source or weighting.
"""
