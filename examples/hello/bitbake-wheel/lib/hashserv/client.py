"""Imported by `bb.siggen`; nothing in it is used without a hash equivalence server."""
