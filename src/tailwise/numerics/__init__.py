"""Functions of arrays that know nothing of detectors: neighbours, metrics, intervals, filters.

This folder imports errors alone.
"""
