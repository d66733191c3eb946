"""Facts that peers taught the ledger, and the folders of folder destinations."""
