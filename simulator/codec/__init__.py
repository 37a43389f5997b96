"""The reference codec: what quantisation, delta and run lengths give on a tensor, bit for bit."""
