"""Readers of data, one sort in each file; `auto` chooses one for a path.

This folder imports backbones, core and below; knows no detector or weighting.
"""
