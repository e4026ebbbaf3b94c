"""Certificates that control access to a run's Dask scheduler; its driver makes new ones.

A scheduler runs any code that it is sent, so an open port gives everybody on the network a shell. With
these certificates scheduler and workers accept only each other: one authority for each driver, never stored, one key
for all of its processes. Workers get them as files that only the user may read, never on a command line.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

DAYS = 400
CA, KEY, CERTIFICATE = "ca.pem", "key.pem", "cert.pem"


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files: the authority, and a key with its certificate."""

    ca: Path
    key: Path
    certificate: Path

    @classmethod
    def at(cls, folder: Path) -> Tls:
        """The files of a folder, under their usual names."""
        return cls(folder / CA, folder / KEY, folder / CERTIFICATE)

    def settings(self) -> dict[str, object]:
        """Dask configuration for processes that use these files."""
        result: dict[str, object] = {
            "distributed.comm.default-scheme": "tls",
            "distributed.comm.require-encryption": True,
            "distributed.comm.tls.ca-file": str(self.ca),
        }
        for role in ("client", "scheduler", "worker"):
            result[f"distributed.comm.tls.{role}.key"] = str(self.key)
            result[f"distributed.comm.tls.{role}.cert"] = str(self.certificate)
        return result

    def environment(self) -> dict[str, str]:
        """The same settings as environment variables that Dask reads; they name files and hold no secret."""
        return {
            f"DASK_{name.replace('.', '__').replace('-', '_').upper()}": str(value)
            for name, value in self.settings().items()
        }


def create_tls(folder: Path) -> Tls:
    """Make an authority, a key and a certificate in a folder that only this user can open."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    files = Tls.at(folder)
    for path, data in zip((files.ca, files.key, files.certificate), _make_pem(), strict=True):
        _write_private(path, data)
    return files


def _make_pem() -> tuple[bytes, bytes, bytes]:
    """Authority certificate, key and certificate; the authority's own key is discarded at once."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    end = begin + datetime.timedelta(days=DAYS)
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(subject: str, public: ec.EllipticCurvePublicKey, *, is_authority: bool) -> bytes:
        builder = x509.CertificateBuilder(
            issuer_name=named("petaseg run authority"),
            subject_name=named(subject),
            public_key=public,
            serial_number=x509.random_serial_number(),
            not_valid_before=begin,
            not_valid_after=end,
        )
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        for extension in (  # without these, Python 3.13 and later accept no certificate
            x509.SubjectKeyIdentifier.from_public_key(public),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
        ):
            builder = builder.add_extension(extension, critical=False)
        if is_authority:
            builder = builder.add_extension(_signs_certificates(), critical=True)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (
        certificate("petaseg run authority", authority.public_key(), is_authority=True),
        private,
        certificate("petaseg", key.public_key(), is_authority=False),
    )


def _signs_certificates() -> x509.KeyUsage:
    from cryptography import x509

    others = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    more = ("crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(key_cert_sign=True, **dict.fromkeys((*others, *more), False))


def _write_private(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
