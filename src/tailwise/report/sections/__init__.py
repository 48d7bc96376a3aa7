"""The sections of a report, one a file: functions from the tables of a run to plain values, and what is drawn of them.

May import the rest of report, and what report may import.
"""
