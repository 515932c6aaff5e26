"""The agent over gRPC: what proto/smidr/v1/smidr.proto says, the server and the client."""
