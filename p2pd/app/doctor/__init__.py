"""`p2pd doctor`: does this node have what it needs? Checks of this machine, its LAN and its WAN."""
