"""GitHub: checks, annotations, webhooks, trust and artifacts for builds that its workflows ask for.

It never runs a workflow's job itself; that is the official runner's part.
"""
