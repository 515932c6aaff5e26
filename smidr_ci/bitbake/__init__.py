"""conf files, the driver that runs inside the container, its event stream and progress.

Never starts a container.
"""
