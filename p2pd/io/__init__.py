"""Adapters to the outside worlds; foreign exceptions are mapped here and nowhere else."""
