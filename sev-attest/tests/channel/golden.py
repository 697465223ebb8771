"""The hashes and texts of the channel by an implementation of its own: what messages.rs expects."""

import hashlib
import json
import struct


def sha384(*parts):
    return hashlib.sha384(b"".join(parts))


def field(data):
    return struct.pack(">Q", len(data)) + data


key = b"\x04" + bytes(range(96))
nonce = b"\x5a" * 32
spki = bytes(range(120))
guest, owner = b"\x11" * 32, b"\x22" * 32
secrets = {"luks_passphrase": "correct horse", "b-2": "\u00e9\"\n"}

print("v1 key binding", sha384(b"aleph-attest-tls-key-v1\0", key).hexdigest())
print("v1 fresh", sha384(b"aleph-attest-fresh-v1\0", key, nonce).hexdigest())
body = json.dumps(secrets, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
body = hashlib.sha256(body).hexdigest()
print(f"v1 owner text aleph-snp-inject-secret-v1|{sha384(key).hexdigest()}|{body}")


def session(role, exporter):
    parts = [b"sev-attest attested channel", b"2", role, exporter, spki, nonce]
    return sha384(*map(field, parts)).hexdigest()


print("v2 report data", session(b"guest to owner", guest) + b"sev-attest ch v2".hex())
body = b"".join(field(name.encode()) + field(value.encode()) for name, value in sorted(secrets.items()))
body = hashlib.sha256(body).hexdigest()
print(f"v2 owner text sev-attest-channel-v2-unlock|{session(b'owner to guest', owner)}|{body}")
