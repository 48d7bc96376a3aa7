"""The training loop, cross-fitting, cleaning, local scores and self-checks.

This folder imports weights, core and below; meets detectors by their protocols.
"""
