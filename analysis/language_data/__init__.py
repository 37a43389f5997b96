"""How the token stream and the key/value tensors in `traces/` were made; run by hand, nothing imports it."""
