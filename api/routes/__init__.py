"""The routes, one file per resource: parse, make one call, render."""
