"""Translate between the wire and the core, a module per protocol; they compute nothing."""
