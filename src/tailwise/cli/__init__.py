"""The command line: commands, their options, and exit statuses.

This folder imports workflows, benchmark and below.
"""
