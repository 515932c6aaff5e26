"""The ContainerRuntime protocol and the Docker Engine behind it.

Knows nothing of BitBake.
"""
