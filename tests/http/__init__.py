"""The API as HTTP: headers, bodies, proxies, restarts, the OpenAPI document, the protocol's page."""
