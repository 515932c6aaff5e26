"""What hosts share of their caches: new objects go to a store outside, and builds read from it.

Only from what trusted builds made. Knows nothing of builds, and deletes nothing.
"""
