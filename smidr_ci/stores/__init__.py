"""Stores outside of this host for whole files: a directory, an HTTP server, an S3 bucket.

Puts, looks up, reads, lists and deletes objects by key. Knows nothing of what they are for.
"""
