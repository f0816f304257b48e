"""A browser without scripts: it keeps cookies, follows redirects, and sends forms as browsers do."""

import re
from html import unescape
from typing import Any

import requests


class Browser:
    """Signed in with a key, where one is given."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.headers["Accept"] = "text/html"
        if key is not None:
            answer = self.send("/ui/login", key=key)
            assert answer.status_code == 200, answer.text[:500]

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=60, **options)

    def send(self, path: str, /, *, headers: dict[str, str] | None = None, follow: bool = True, **fields: Any) -> Any:
        """Send a form as our pages do, without the token unless it is given."""
        sent = {"Sec-Fetch-Site": "same-origin", "Origin": self.url, **(headers or {})}
        return self.session.post(self.url + path, data=fields, headers=sent, timeout=60, allow_redirects=follow)

    def act(self, path: str, **fields: Any) -> requests.Response:
        """Send a form with the token of this session."""
        answer: requests.Response = self.send(path, csrf=self.token(), **fields)
        return answer

    def token(self) -> str:
        """Return what the forms of this session carry."""
        pages = self.get("/ui/").text + self.get("/ui/keys").text  # without keys there is no form to sign out
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', pages)
        assert found
        return found[1]


def shown(answer: requests.Response) -> str:
    """Return the text of a page, without its tags."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", answer.text)))
