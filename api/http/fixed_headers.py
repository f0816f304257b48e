"""Headers that are the same whatever is asked. gunicorn's master imports this: keep it small."""

# Nothing is to be run, framed, sniffed, kept or told to another site.
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
JSON = ("Content-Type", "application/json")
POLL_HEADERS = (("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))
FIXED = (JSON, *POLL_HEADERS, *SAFE.items())
