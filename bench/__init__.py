"""How fast the server is beside what it could be at most, and training beside other training."""
