"""The documentation page: Swagger UI, all of it from this server, under a policy that lets nothing else run."""

import base64
import hashlib
import re

from flask import Flask
from flask_swagger_ui import get_swaggerui_blueprint

PATH = "/docs"
# Without the bar that loads other documents, and without anything that contacts another host.
PAGE = {"layout": "BaseLayout", "validatorUrl": None, "oauth2RedirectUrl": None}
# Swagger UI sets inline styles at run time; they cannot be named beforehand.
POLICY = (
    "default-src 'none'; script-src 'self' {}; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_docs_page(app: Flask, title: str) -> str:
    """Add the page, which needs /openapi.json; return the Content-Security-Policy for everything below its path.

    The page's one inline script is named by its hash: it is the same in every response.
    """
    app.register_blueprint(get_swaggerui_blueprint(PATH, "/openapi.json", config={"app_name": title, **PAGE}))
    with app.test_request_context(f"{PATH}/"):
        page: str = app.view_functions["swagger_ui.show"]()  # type: ignore[assignment]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return POLICY.format(" ".join(f"'sha256-{one}'" for one in hashes))
