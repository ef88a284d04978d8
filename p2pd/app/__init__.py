"""Configuration, orchestration, the nursery tree and the command line."""
