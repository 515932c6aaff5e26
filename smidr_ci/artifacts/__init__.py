"""Chooses, copies, checksums, lists and retains what a build left.

Never follows a link out of the deploy directory.
"""
