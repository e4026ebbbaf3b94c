"""Data from outside is never executed as code, and only a run's own processes can talk to its scheduler."""

import json
import os
import pickle
import ssl
import stat
from contextlib import suppress
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

from pipeline.clusters.tls import create_tls
from pipeline.config.reading import load_config
from pipeline.errors import ConfigError, VolumeError
from pipeline.volumes import open_volume
from tests.runs import write_run

PICKLE = {"id": "pickle", "protocol": 5}


class Trap:
    """An object that makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    "codecs",
    [
        {"filters": [PICKLE], "compressor": None},
        {"filters": [{"id": "shuffle", "elementsize": 1}, PICKLE], "compressor": None},
        {"filters": None, "compressor": PICKLE},
    ],
    ids=["filter", "second filter", "compressor"],
)
def test_a_volume_that_would_be_unpickled_is_refused(tmp_path, codecs):
    mark, folder = tmp_path / "executed", tmp_path / "trap.zarr"
    zarr.create_array(str(folder), shape=(4, 4, 4), chunks=(4, 4, 4), dtype="u1", zarr_format=2, fill_value=0)
    metadata = json.loads((folder / ".zarray").read_text()) | codecs
    (folder / ".zarray").write_text(json.dumps(metadata))
    (folder / "0.0.0").write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(VolumeError):
        open_volume(f"{folder}?resolution_nm=8,8,8")
    assert not mark.exists()


def test_pickled_arrays_are_refused(tmp_path):
    mark, file = tmp_path / "executed", tmp_path / "trap.npy"
    np.save(file, np.array([Trap(mark)] * 8, dtype=object).reshape(2, 2, 2), allow_pickle=True)
    with pytest.raises(VolumeError):
        open_volume(str(file))
    assert not mark.exists()


@pytest.mark.parametrize(
    "cluster",
    [
        {"queue": "cpu\n#SBATCH --wrap=id"},
        {"queue": "--wrap=id"},
        {"account": "lab; id"},
        {"account": "$(id)"},
        {"namespace": "a b"},
        {"image": "`id`"},
        {"workers": {"options": ["--wrap=id"]}},
        {"workers": {"options": ["--qos=long\nid"]}},
        {"workers": {"walltime": "1:00:00; id"}},
        {"workers": {"node_selector": {"a": "$(id)"}}},
        {"driver": {"walltime": "01:00:00\nid"}},
        {"setup": ["id"]},
        {"python": "/bin/sh"},
    ],
    ids=str,
)
def test_a_run_file_cannot_carry_commands(tmp_path, cluster):
    file = write_run(tmp_path, input={"image": "image.zarr"}, cluster=cluster)
    with pytest.raises(ConfigError, match="cluster"):
        load_config(file)


def test_node_options_that_sites_need_are_taken(tmp_path):
    options = ["--constraint=skylake&ib", "--qos=long", "--exclude=n[1-3],n7", "--exclusive", "--gres=gpu:a100:1"]
    file = write_run(tmp_path, input={"image": "image.zarr"}, cluster={"workers": {"options": options}})
    assert list(load_config(file).cluster.workers.options) == options


def test_certificates_are_for_their_owner_only(tmp_path):
    tls = create_tls(tmp_path / "tls")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tls.ca.parent, tls.ca, tls.key, tls.certificate)]
    assert modes == [0o700, 0o600, 0o600, 0o600]
    assert not any("PRIVATE" in value or "BEGIN" in value for value in tls.environment().values())


def test_only_processes_with_the_certificate_reach_the_scheduler(tmp_path):
    ours, theirs = create_tls(tmp_path / "ours"), create_tls(tmp_path / "theirs")
    options = {"processes": False, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "silence_logs": 50}
    with dask.config.set(ours.settings()):
        cluster = LocalCluster(n_workers=1, threads_per_worker=1, protocol="tls://", **options)
    with cluster:
        with (
            dask.config.set(ours.settings()),
            Client(cluster.scheduler_address, set_as_default=False, timeout=20) as client,
        ):
            assert client.submit(sum, [1, 2]).result() == 3
        with dask.config.set(theirs.settings()), pytest.raises(OSError, match="certificate does not match"):
            Client(cluster.scheduler_address, set_as_default=False, timeout=2)
        with pytest.raises(OSError, match=r"Timed out|reset|closed"):
            Client(cluster.scheduler_address.replace("tls://", "tcp://"), set_as_default=False, timeout=2)


def test_every_connection_of_a_run_must_be_encrypted(tmp_path):
    """With the settings of a run, Dask refuses an address without TLS before it connects."""
    settings = create_tls(tmp_path / "tls").settings()
    with dask.config.set(settings), pytest.raises(RuntimeError, match="encryption required"):
        Client("tcp://127.0.0.1:9", set_as_default=False, timeout=1)


def test_certificates_pass_the_strict_rules_of_newer_pythons(tmp_path):
    """A run's certificates pass X.509 strict verification, which Python 3.13 applies by default."""
    tls = create_tls(tmp_path / "tls")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca)
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=tls.ca)
    server.verify_mode = ssl.CERT_REQUIRED
    for context in (server, client):
        context.load_cert_chain(tls.certificate, tls.key)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
    ]
    for _ in range(6):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert [end.getpeercert()["issuer"] for end in ends] == [((("commonName", "petaseg run authority"),),)] * 2
