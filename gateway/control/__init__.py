"""The control API: what can be asked of a running gateway over the Unix socket of its state folder, and the client that asks.

`wire` is what crosses the socket (requests, errors, lines), `sockets` where it lies, `server` and `api` answer on trio, `status`,
`peers` and `jobs` do the work behind the routes, `client` is how a command reaches the gateway or runs one itself.
"""
