"""Values of the domain: digests, references, blob arithmetic, errors. No I/O, no clock."""
