"""What people read of a run: computed as plain dicts, then drawn, then laid out as pages.

This folder imports runs and below.
"""
