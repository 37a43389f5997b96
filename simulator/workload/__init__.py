"""What arrives: recorded traces and synthetic requests. Start reading at `requests`, then `read` and `synthetic`."""
