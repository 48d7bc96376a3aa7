"""What a fit writes: the folder, its table of scores, and the scorer that opens it.

This folder imports training, calibration, sources and below.
"""
