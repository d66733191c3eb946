"""Pixel data: what a data set and a codestream say about it, and which transfer syntaxes it fits (PS3.5 §8)."""
