"""Expected against received: tally, fitness, notes, and what the ledger has of it."""
