"""How people and programs talk to an agent: gRPC, HTTP/JSON, health and metrics, and the clients.

It never decides anything about builds: it checks who asks, and passes on to the agent.
"""
