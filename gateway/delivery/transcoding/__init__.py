"""Copies of instances in other transfer syntaxes: which are needed, making them, keeping them until delivery."""
