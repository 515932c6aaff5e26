"""smidr.yaml and agent.yaml into frozen models; errors with line numbers; JSON schema.

Reads no file but the given one.
"""
