"""Official runners on demand: each for one job, started when GitHub has jobs for this host.

`jit` and `scale_set` speak with GitHub; what runs on this host is behind `ports.Runners`.
"""
