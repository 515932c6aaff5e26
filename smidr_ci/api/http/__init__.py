"""HTTP/JSON over unix sockets and TCP: it translates between requests and `api.operations`."""
