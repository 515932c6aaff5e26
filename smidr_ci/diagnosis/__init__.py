"""Console text, events and task logs into findings.

Never reads anything but what it is given.
"""
