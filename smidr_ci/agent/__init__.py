"""The long-running process on a build host: queue, start, recover, deliver, shut down.

It never builds: `builds` does. It never speaks a network protocol: `api` and `forges` do.
"""
