"""Verifier of AMD SEV-SNP attestation reports: evidence in, findings out, no network."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple, Optional, Union

from ._native import answer as _answer

__all__ = ["AttestationError", "Result", "appraise"]


class AttestationError(ValueError):
    """The evidence could not be read, or an option is mistaken."""


class Result(NamedTuple):
    """What is said of a report. It has no truth value: ask ``may_send_secret`` or ``outcome``."""

    appraisal: dict[str, Any]
    """``sev-attest verify --json``, of the schema ``sev-attest/verify/2``."""
    report: Optional[dict[str, Any]]
    """The report's fields, as ``sev-attest show --json``; None where its version is unknown."""
    summary: str
    """The verdict and what decides, in a screenful of text."""

    @property
    def outcome(self) -> str:
        """``genuine`` (and as expected), ``incomplete``, ``refused`` or ``undecided``."""
        return self.appraisal["outcome"]

    @property
    def may_send_secret(self) -> bool:
        """The one answer to the question whether a secret may be sent to the guest."""
        return self.appraisal["may_send_secret"]

    def __bool__(self) -> bool:
        raise TypeError("a result is neither true nor false: ask may_send_secret or outcome")


def appraise(
    report: Union[bytes, str],
    *,
    certificates: Iterable[Union[bytes, str]] = (),
    policy: Optional[Union[bytes, str]] = None,
    measurement: Optional[str] = None,
    report_data: Optional[str] = None,
    host_data: Optional[str] = None,
    any_guest: bool = False,
    any_time: bool = False,
    allow_foreign_root: bool = False,
    at: Optional[datetime] = None,
) -> Result:
    """Judges a report, in any form that tools and clouds hand out.

    ``certificates``: certificates and revocation lists in any form. ``policy``: a policy file of
    ``sev-attest policy init``, which the other options override. ``measurement`` and ``host_data``:
    hexadecimal digits. ``report_data``: 128 of them, or a nonce of 8 bytes and more with zeros after
    it. ``any_guest`` and ``any_time`` waive the launch digest and the report data, one of which must
    be expected otherwise. ``at``: when validity is judged, with a time zone; now by default.
    """
    if at is not None and at.tzinfo is None:
        raise ValueError("at: a time without a zone")
    files = [_file("report", report)]
    files += [_file(f"certificates[{i}]", one) for i, one in enumerate(certificates)]
    if policy is not None:
        files.append(_file("policy.toml", policy))
    request = {
        "files": files,
        "measurement": measurement or "",
        "report_data": report_data or "",
        "host_data": host_data or "",
        "any_guest": any_guest,
        "any_time": any_time,
        "allow_foreign_root": allow_foreign_root,
        "at": int(time.time() if at is None else at.timestamp()),
    }
    answer = json.loads(_answer(json.dumps(request)))
    if answer["error"] is not None:
        raise AttestationError(answer["error"])
    return Result(answer["appraisal"], answer["report"], answer["summary"])


def _file(name: str, content: Union[bytes, str]) -> dict[str, str]:
    raw = content.encode() if isinstance(content, str) else bytes(content)
    return {"name": name, "data": base64.b64encode(raw).decode()}
