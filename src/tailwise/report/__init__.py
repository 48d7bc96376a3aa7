"""The pages about a run: plain dicts first, then drawings, then HTML and Markdown.

This folder imports runs and below.
"""
