"""The agent over gRPC: what proto/smidr/v1/smidr.proto says, the server and the client."""

import os

# Its handlers get in the way of programs that other threads start, and those exec at once anyway.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
