"""Queries about deliveries: claiming, proofs, what people see of them and do about them."""
