"""The build itself: model, pipeline, store, logbook.

Never talks to a forge.
"""
