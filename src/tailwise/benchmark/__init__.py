"""Methods compared in pairs: suites, draws, appended rows, and pages made from rows.

This folder imports report, runs and below.
"""
