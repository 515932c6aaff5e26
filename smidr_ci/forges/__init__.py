"""GitLab and GitHub: jobs come in, results go out.

A forge never builds: it hands orders to a `BuildService` and reports what becomes of them.
"""
