"""Single figures of a node: what it costs when idle, warm, full or busy, apart from the site's time."""
