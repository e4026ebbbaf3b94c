"""Errors about a bucket that cannot be used name the cause and the remedy, and never show a credential."""

import json
import pickle
import ssl
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.clusters.tls import create_tls
from pipeline.errors import ConfigError, StorageError
from pipeline.storage import ObjectStore, bucket_client
from tests.objectstore.faults import faulty_server
from tests.objectstore.server import KEY, SECRET, S3Server, s3_server, set_environment

TOKEN = "SessionTokenThatMustNeverBeWrittenAnywhere/0000=="


@pytest.fixture(scope="module")
def strict() -> Iterator[tuple[S3Server, dict[str, str]]]:
    """A server that checks signatures, with a bucket and a user without rights; yields the keys."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="3") as server:
        import boto3

        server.client().create_bucket(Bucket="bucket")
        session = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        people = boto3.client("iam", endpoint_url=server.endpoint, **session)
        people.create_user(UserName="nobody")
        keys = people.create_access_key(UserName="nobody")["AccessKey"]
        yield server, {"AWS_ACCESS_KEY_ID": keys["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"]}


def refusal(store: ObjectStore, secrets: tuple[str, ...]) -> str:
    """The message of the error that a write raises; asserts that its traceback holds no secret either."""
    with pytest.raises(StorageError) as caught:
        store.put("key", b"x")
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(store)
    shown += repr(pickle.dumps(store)) + repr(pickle.dumps(caught.value))
    assert not [secret for secret in secrets if secret in shown]
    return str(caught.value)


def test_an_unknown_key_is_named(strict, monkeypatch):
    server, _ = strict
    set_environment(monkeypatch, {**server.environment, "AWS_SESSION_TOKEN": TOKEN})
    message = refusal(ObjectStore("s3://bucket/run"), (KEY, SECRET, TOKEN))
    assert message.startswith("cannot write s3://bucket/run/key: the access key is not known there; correct")


def test_a_wrong_secret_is_named(strict, monkeypatch):
    server, keys = strict
    set_environment(monkeypatch, {**server.environment, **keys, "AWS_SECRET_ACCESS_KEY": SECRET})
    message = refusal(ObjectStore("s3://bucket/run"), (SECRET, keys["AWS_ACCESS_KEY_ID"]))
    assert "the secret key does not fit the access key; correct them" in message


def test_missing_rights_are_named(strict, monkeypatch):
    server, keys = strict
    set_environment(monkeypatch, {**server.environment, **keys})
    message = refusal(ObjectStore("s3://bucket/run"), tuple(keys.values()))
    assert "access denied; give these credentials the right to read, write" in message


def test_missing_credentials_are_named(server, monkeypatch):
    with faulty_server(server.endpoint, kinds=("403",), rate=1.0) as closed:
        set_environment(monkeypatch, {"AWS_ENDPOINT_URL": closed.endpoint})
        message = refusal(ObjectStore("s3://bucket/run"), ())
    assert "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in message


def test_a_missing_bucket_is_named_by_every_operation(bucket):
    """Every operation on a missing bucket is an error that names it; it does not look like an empty bucket."""
    store = ObjectStore("s3://no-such-bucket/run")
    operations = [
        lambda: store.get_or_none("key"),
        lambda: store.get("key", 1, 3),
        lambda: store.exists("key"),
        lambda: store.list(),
        lambda: store.put("key", b"x"),
        lambda: store.put_if("key", b"x", None),
        lambda: store.put_if("key", b"x", json.dumps({"e_tag": '"0"'})),
        lambda: store.get_versioned("key"),
    ]
    for operation in operations:
        bucket_client.connect.cache_clear()
        with pytest.raises(StorageError, match=r"there is no bucket no-such-bucket at http://127.*; create it, or"):
            operation()


def test_a_server_that_does_not_answer_is_named_at_once(bucket, monkeypatch):
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    set_environment(monkeypatch, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", **keys})
    message = refusal(ObjectStore("s3://bucket/run"), (KEY, SECRET))
    assert "no answer from http://127.0.0.1:9 (Connection refused); check AWS_ENDPOINT_URL and the network" in message


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9", "ftp://host", "http://host:99999", "http://", "https://a b:x"])
def test_an_address_that_is_none_is_refused(endpoint, monkeypatch):
    set_environment(monkeypatch, {"AWS_ENDPOINT_URL": endpoint})
    with pytest.raises(ConfigError, match="is no address of a server; write https://host"):
        ObjectStore("s3://bucket/run").exists("key")


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{KEY}:{SECRET}@bucket/run",
        f"s3://https://{KEY}:{SECRET}@host/bucket/run",
        f"gs://user:{SECRET}@bucket/run",
        f"https://user:{SECRET}@host/run",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    """A URL with credentials is refused, and the error does not repeat them."""
    with pytest.raises(ConfigError, match="holds credentials; they belong in the environment") as caught:
        ObjectStore(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value)).replace(repr(url), "")


def test_a_url_without_a_bucket_is_refused():
    with pytest.raises(ConfigError, match="names no bucket; write s3://bucket/path"):
        ObjectStore("s3://")


def test_a_server_of_a_lab_with_its_own_certificates(server, monkeypatch, tmp_path: Path):
    """``AWS_CA_BUNDLE`` makes a server with a lab's own certificate trusted; without it the server is refused."""
    files = create_tls(tmp_path / "tls")
    with faulty_server(server.endpoint) as private:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        private.socket = context.wrap_socket(private.socket, server_side=True)
        url = f"s3://{private.endpoint.replace('http:', 'https:')}/{server.new_bucket()}/run"
        set_environment(monkeypatch, {**server.environment, "AWS_CA_BUNDLE": str(files.ca)})
        ObjectStore(url).put("key", b"x")
        assert ObjectStore(url).get("key") == b"x"
        set_environment(monkeypatch, server.environment)
        assert "no answer from https://127.0.0.1" in refusal(ObjectStore(url), (SECRET,))
        set_environment(monkeypatch, {**server.environment, "AWS_CA_BUNDLE": "/nonexistent.pem"})
        with pytest.raises(ConfigError, match=r"AWS_CA_BUNDLE names /nonexistent.pem: No such file"):
            ObjectStore(url).get("key")


def test_an_odd_key_is_refused_and_an_unusual_one_is_not(bucket, server):
    store = ObjectStore(f"{bucket}/my data")
    for key in ("a b", "a+b", "ü", "a%20b", "a#b?c", "(a)[b]{c}~'"):
        store.put(key, key.encode())
        found = server.client().get_object(Bucket=bucket[5:], Key=f"my data/{key}")["Body"].read()
        assert found == store.get(key) == key.encode()
        assert store.list() == [key]
        store.delete(key)
    with pytest.raises(StorageError, match=r"cannot read .*a//b: .*empty path segment; correct the address"):
        store.get("a//b")


def test_keys_come_from_a_profile_or_from_cloud_volumes_file(server, monkeypatch, tmp_path: Path):
    """Keys come from an AWS profile or cloud-volume's secrets file; a session token may be missing in each."""
    name = server.new_bucket()
    (tmp_path / "credentials").write_text(f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    (tmp_path / "config").write_text(f"[profile lab]\nregion = us-east-1\nendpoint_url = {server.endpoint}\n")
    files = {"AWS_SHARED_CREDENTIALS_FILE": tmp_path / "credentials", "AWS_CONFIG_FILE": tmp_path / "config"}
    set_environment(monkeypatch, {"AWS_PROFILE": "lab", **{key: str(path) for key, path in files.items()}})
    ObjectStore(f"s3://{name}/run").put("key", b"profile")
    assert is_signed(name)
    secrets = tmp_path / "cv" / "secrets"
    secrets.mkdir(parents=True)
    text = json.dumps({"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET})
    (secrets / "aws-secret.json").write_text(text)
    set_environment(monkeypatch, {"CLOUD_VOLUME_DIR": str(tmp_path / "cv"), "AWS_ENDPOINT_URL": server.endpoint})
    assert ObjectStore(f"s3://{name}/run").get("key") == b"profile"
    assert is_signed(name)


def is_signed(name: str) -> bool:
    """True if this process has found keys for a bucket."""
    return bucket_client.connect(bucket_client.Address("s3", None, name)).server.signed
