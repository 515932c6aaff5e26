"""GitLab's runner protocol: jobs are asked for, built through a `BuildService`, and reported.

What a job brings (payload, variables, script) is a stranger's. Nothing of it runs on the host.
"""
