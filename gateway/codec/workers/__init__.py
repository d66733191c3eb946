"""Worker processes that encode, decode and compare frames, and may die of a codestream."""
