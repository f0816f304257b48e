"""bench/hostile.py bends a request of every route: of the OpenAPI document and of the dashboard."""

import json
import random
import re

from bench.attack_routes import requests_of
from bridge.cli.local.checkout import ROOT


def test_every_route_is_among_the_bent_requests():
    document = json.loads((ROOT / "tests/rules/openapi_form.json").read_text())
    declared = {one for one in document if re.match(r"(GET|POST|PUT|PATCH|DELETE) /", one)}
    pages = (ROOT / "api/ui").glob("*.py")
    made = [
        found for page in pages for found in re.findall(r'ui\.route\("(.+?)", methods=\["(.+?)"\]', page.read_text())
    ]
    declared |= {f"{method} /ui{re.sub('<.+?>', '{x}', path)}" for path, method in made}
    job = "00000000-0000-7000-8000-000000000000"
    bent = {f"{one.method} {one.path.partition('?')[0]}" for one in requests_of(job, "/x", random.Random(1))}
    missing = {
        route for route in declared if not any(re.fullmatch(re.sub(r"\{.+?\}", "[^/]+", route), one) for one in bent)
    }
    assert len(declared) > 70
    assert not missing
