"""Frozen image networks, and the cache of what they see.

This folder imports core and below.
"""
