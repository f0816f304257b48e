"""Requests that the bridge itself makes to addresses that others have named: which may be reached, and how."""
