"""Git mirrors, immutable trees by commit, lockfile and layer discovery.

Never moves a tree that is in use.
"""
