"""Methods compared in pairs: suites, draws, rows that are appended, and pages made of rows.

This folder imports report, runs and below.
"""
