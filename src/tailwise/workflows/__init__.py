"""What each command does, from its options to the files that it writes.

This folder imports everything but benchmark and cli.
"""
