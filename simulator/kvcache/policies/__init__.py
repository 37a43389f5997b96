"""The KV policies as pure functions, one file each; `law.py` composes them."""
