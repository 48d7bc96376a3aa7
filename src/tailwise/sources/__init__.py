"""Where data comes from, one sort of data a file; `auto` finds the right one for a path.

This folder imports backbones, core and below; knows no detector or weighting.
"""
