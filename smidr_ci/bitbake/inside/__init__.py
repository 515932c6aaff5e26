"""What runs inside the builder container: the driver, and a UI module for BitBake.

It is copied into a build's control directory, so it uses nothing but the standard library and the
syntax of Python 3.8, and imports nothing of smidr's other rooms.
"""
