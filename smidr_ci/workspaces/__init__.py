"""Leases build directories, each to exactly one build, and seeds their parse cache.

Never shares one.
"""
