"""Layout of downloads and sstate on disk, and who mounts what how.

Never deletes to fix a build.
"""
