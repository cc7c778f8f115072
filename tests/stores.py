"""Stores to test with: a folder, and S3 as ``moto`` speaks it, a real server on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tiny_model import tiny_model

from detector.adapters.folder import write_model
from detector.engine.model import Model

#: What moto takes: anything.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


def model(number: int = 0, **kinds: object) -> Model:
    """A small model; another number is another one."""
    made = tiny_model(threshold=3.0 + number, **kinds)  # type: ignore[arg-type]
    return replace(made, manifest=made.manifest.model_copy(update={"metrics": {"number": float(number)}}))


def folder_of(path: Path, number: int = 0, **kinds: object) -> Path:
    """Its folder."""
    write_model(model(number, **kinds), path, {"report.html": b"<p>a page</p>"})
    return path


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """A server with a bucket ``models``; the variables by which it is reached."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        import boto3

        boto3.client("s3").create_bucket(Bucket="models")
        yield variables
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        server.stop()
