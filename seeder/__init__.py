"""p2pd-seeder: the central service that pulls each blob once from its origin registry."""
