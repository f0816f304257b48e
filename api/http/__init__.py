"""What all routes share: access, bodies, problems, views, headers, metrics."""
