"""p2pd: each layer crosses the WAN of an edge site once."""

__version__ = "0.1.0"
