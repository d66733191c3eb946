"""The commands: one module a command or a group of them; `gateway.cli.COMMANDS` says where each is."""
