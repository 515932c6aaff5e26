"""A worker for `bb.runqueue`: takes tasks over a pipe, runs each in a process, reports the end.

It knows nothing of fakeroot and profiling.
"""
