"""Every wire shape, once."""
