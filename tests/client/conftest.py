"""Runs the client's calls, of `Client` and of `AsyncClient`, with the key of a test's tenant."""

from functools import partial

import anyio
import pytest

from jobbridge_client import AsyncClient, Client


async def _call(name, url, key, options, *arguments, **named):
    async with AsyncClient(url, key, **options) as client:
        called = getattr(client, name)(*arguments, **named)
        return [one async for one in called] if name == "jobs" else await called


@pytest.fixture(params=["sync", "async"])
def either(request, client):
    """Return a function that calls a method of either client: `either("wait", job, url=…, options={…})`."""

    def call(name, *arguments, url=client.url, key=client.key, options=None, **named):
        options = {"patience": 30.0, **(options or {})}
        if request.param == "async":
            return anyio.run(partial(_call, name, url, key, options, *arguments, **named))
        with Client(url, key, **options) as sync:
            called = getattr(sync, name)(*arguments, **named)
            return list(called) if name == "jobs" else called

    return call


@pytest.fixture
def sdk(client):
    """Yield a client with the key of this test's tenant."""
    with Client(client.url, client.key, patience=30.0) as made:
        yield made
