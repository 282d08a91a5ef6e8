"""The library's own proof: its pools and its task queue under every schedule of small programs."""
