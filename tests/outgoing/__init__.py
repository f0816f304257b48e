"""What the bridge asks of addresses that strangers name."""
