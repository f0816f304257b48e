"""Files that clients send: where their bytes are stored, how they come in pieces, and how unneeded ones are removed."""
