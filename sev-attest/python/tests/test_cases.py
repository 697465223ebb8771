"""The package says what the command says, of the cases that all bindings share."""

import json
import os
import subprocess
import tempfile
import unittest
from datetime import datetime, timezone
from pathlib import Path

from sev_attest import AttestationError, appraise

AT = "2026-06-01T00:00:00Z"
COMMAND = os.environ["SEV_ATTEST_BIN"]
TESTS = Path(__file__).parents[2] / "tests"
CASES = json.loads((TESTS / "bindings/cases.json").read_text())
FIELDS = {"report_data": (0x50, 0x90), "measurement": (0x90, 0xC0), "host_data": (0xC0, 0xE0)}


class Cases(unittest.TestCase):
    maxDiff = None

    def test_cases(self):
        self.assertGreater(len(CASES), 15)
        for case in CASES:
            with self.subTest(case["name"]), tempfile.TemporaryDirectory() as directory:
                self.check(case, Path(directory))

    def check(self, case, directory):
        def vector(name):
            return TESTS / "vectors" / name

        report = bytearray(vector(case["report"]).read_bytes())
        if "flip" in case:
            report[case["flip"]] ^= 1
        expected = dict(case)
        for field in case.get("from_report", []):
            start, end = FIELDS[field]
            expected[field] = report[start:end].hex()
        file = directory / "report"
        file.write_bytes(report)
        args = [COMMAND, "verify", file, "--json", "--offline", "--at", AT]
        args += ["--cache-dir", directory / "cache", "--aleph-cache", directory / "none"]
        for name in case["certificates"]:
            args += ["--certs", vector(name)]
        for field in ("measurement", "report_data", "nonce", "host_data"):
            if field in expected:
                args += ["--" + field.replace("_", "-"), expected[field]]
        for field in ("any_guest", "any_time"):
            if case.get(field):
                args.append("--" + field.replace("_", "-"))
        if "policy" in case:
            (directory / "policy.toml").write_text(case["policy"])
            args += ["--policy", directory / "policy.toml"]
        said = subprocess.run(args, capture_output=True, text=True)
        self.assertEqual(said.returncode, case["exit_status"], said.stderr)
        options = {
            "certificates": [vector(name).read_bytes() for name in case["certificates"]],
            "policy": case.get("policy"),
            "measurement": expected.get("measurement"),
            "report_data": expected.get("report_data", expected.get("nonce")),
            "host_data": expected.get("host_data"),
            "any_guest": case.get("any_guest", False),
            "any_time": case.get("any_time", False),
            "at": datetime(2026, 6, 1, tzinfo=timezone.utc),
        }
        if case["exit_status"] == 2:
            with self.assertRaises(AttestationError):
                appraise(report, **options)
            return
        result = appraise(report, **options)
        self.assertEqual(result.appraisal, json.loads(said.stdout))
        self.assertIs(result.may_send_secret, case.get("may_send_secret", False))
        self.assertTrue(result.summary.startswith("verdict: " + result.appraisal["verdict"]))

    def test_no_truth_value(self):
        report = (TESTS / "vectors/az-genoa-report.bin").read_bytes()
        with self.assertRaises(TypeError):
            bool(appraise(report))
        with self.assertRaises(ValueError):
            appraise(report, at=datetime(2026, 6, 1))


if __name__ == "__main__":
    unittest.main()
