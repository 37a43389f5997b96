"""Fits of catalogue constants to measurements. Each script can be rerun by anyone who has the data."""
