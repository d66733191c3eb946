"""Arrivals: to which retrieval an instance belongs, and waiting until no more comes."""
