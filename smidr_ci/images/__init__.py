"""Builder images: pulled, built from a package list, or bootstrapped without a registry.

Never falls back silently.
"""
