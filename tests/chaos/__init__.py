"""The checker: the whole system under load and faults, and clients that check what they were promised."""
