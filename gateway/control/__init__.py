"""The control API: what can be asked of a running gateway over the Unix socket of its state folder, and the client that asks.

`wire` is what crosses the socket (requests, errors, lines), `events` are the messages of streams, `sockets` where it lies; `server`
and `api` answer on trio, `commands` do the work behind the routes, `client` is how a command reaches the gateway, `running` gives a
gateway this API for its life, and `embedded` runs one inside a command's own process.
"""
