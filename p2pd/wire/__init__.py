"""Parsers and codecs: bytes in, values out, bounded and fuzzed."""
