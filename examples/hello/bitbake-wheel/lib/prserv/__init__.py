"""Stands in for BitBake's PR service, which the wheel leaves out."""
