"""What is wrong with this host, and the command that mends it.

Looks and reports; never changes anything, and never takes longer than a few seconds.
"""
