"""One Protocol per outside world."""
