"""The database under the ledger: schema, migrations, the one writer, health, and the allowed transitions."""
