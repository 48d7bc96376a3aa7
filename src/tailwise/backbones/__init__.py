"""Frozen image networks, and the cache of their features.

This folder imports core and below.
"""
