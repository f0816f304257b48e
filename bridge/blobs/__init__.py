"""Files that clients send: where their bytes lie, how they come in pieces, and how what nobody needs goes."""
