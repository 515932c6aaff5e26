"""Fixtures that unit and integration tests share."""

import os

# Before any test imports gRPC: its handlers of fork(2) close file descriptors that are others' by
# then, in the process and in the children that tests fork (EBADF where a build user is probed).
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

pytest_plugins = ["tests.fakes.hello", "tests.fakes.sockets"]
