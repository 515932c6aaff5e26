"""Fixtures that unit and integration tests share."""

pytest_plugins = ["tests.fakes.hello", "tests.fakes.sockets"]
