"""Findings and results written for a reader: Markdown, annotations, Code Quality, JUnit, SARIF.

Never decides what a finding is.
"""
