"""The HTML report: one file without network, from results folders alone."""
