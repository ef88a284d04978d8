"""A site in virtual time: the decisions of p2pd, without daemons or links."""
