"""A real S3 server on loopback, in a process of its own, and the environment that reaches it."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

KEY, SECRET = "AKIATESTTESTTESTTEST", "S3cretThatMustNeverBeWrittenAnywhere0000"

PROGRAM = """
import logging, sys, threading
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer

answer, one_at_a_time = DomainDispatcherApplication.__call__, threading.Lock()

def answer_conditions(self, request, start_response):
    if not {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"} & request.keys():
        return answer(self, request, start_response)
    with one_at_a_time:
        return answer(self, request, start_response)

DomainDispatcherApplication.__call__ = answer_conditions
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""
"""The server prints its port, and ends when its input is closed, so that none is left behind.

Conditional requests come one at a time: moto compares and writes in two steps, a real store in one.
"""


@dataclass(frozen=True)
class S3Server:
    """The address of a running server."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a user of this server exports."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self):
        """A client of Amazon's own library, boto3."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def new_bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name


@contextmanager
def s3_server(**environment: str) -> Iterator[S3Server]:
    """Start a server on a free port; it stops at the end of the context."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env={**os.environ, **environment}) as process:  # type: ignore[call-overload]
        assert process.stdin
        assert process.stdout
        try:
            yield S3Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.stdin.close()
            process.wait(20)


def set_environment(patch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    """Forget every credential of this machine, and set these."""
    from pipeline.stages import opened
    from pipeline.storage import bucket_client

    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
        patch.delenv(name)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
    patch.setenv("CLOUD_VOLUME_DIR", "/nonexistent")
    for name, value in environment.items():
        patch.setenv(name, value)
    bucket_client.connect.cache_clear()
    opened.forget()
