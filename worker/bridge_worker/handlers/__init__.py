"""Reference handlers; each needs `pip install 'bridge-worker[handlers]'`."""
