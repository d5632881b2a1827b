"""Training and evaluation over a snapshot."""
