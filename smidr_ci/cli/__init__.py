"""click commands, one module per group: parse, call, print.

No logic and no state.
"""
