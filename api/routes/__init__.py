"""The routes, one file a resource: parse, make one call, render."""
