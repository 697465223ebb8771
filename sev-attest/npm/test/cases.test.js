// The package says what the command says, of the cases that all bindings share.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { AttestationError, appraise } from "../dist/index.js";

const AT = "2026-06-01T00:00:00Z";
const command = process.env.SEV_ATTEST_BIN;
assert.ok(command, "SEV_ATTEST_BIN names the command");
const tests = fileURLToPath(new URL("../../tests/", import.meta.url));
const cases = JSON.parse(readFileSync(join(tests, "bindings/cases.json"), "utf8"));
const FIELDS = { report_data: [0x50, 0x90], measurement: [0x90, 0xc0], host_data: [0xc0, 0xe0] };

for (const one of cases) {
  test(one.name, async () => {
    const directory = mkdtempSync(join(tmpdir(), "sev-attest-"));
    try {
      const vector = (name) => join(tests, "vectors", name);
      const report = readFileSync(vector(one.report));
      if (one.flip !== undefined) report[one.flip] ^= 1;
      const expected = { ...one };
      for (const field of one.from_report ?? []) {
        expected[field] = report.subarray(...FIELDS[field]).toString("hex");
      }
      const file = join(directory, "report");
      writeFileSync(file, report);
      const args = ["verify", file, "--json", "--offline", "--at", AT, "--cache-dir", join(directory, "cache"),
        "--aleph-cache", join(directory, "none")];
      for (const name of one.certificates) args.push("--certs", vector(name));
      for (const field of ["measurement", "report_data", "nonce", "host_data"]) {
        if (expected[field]) args.push(`--${field.replace("_", "-")}`, expected[field]);
      }
      for (const field of ["any_guest", "any_time"]) if (one[field]) args.push(`--${field.replace("_", "-")}`);
      if (one.policy !== undefined) {
        writeFileSync(join(directory, "policy.toml"), one.policy);
        args.push("--policy", join(directory, "policy.toml"));
      }
      const said = spawnSync(command, args, { encoding: "utf8" });
      assert.equal(said.status, one.exit_status, said.stderr);
      const options = {
        certificates: one.certificates.map((name) => readFileSync(vector(name))),
        measurement: expected.measurement,
        reportData: expected.report_data ?? expected.nonce,
        hostData: expected.host_data,
        anyGuest: one.any_guest,
        anyTime: one.any_time,
        at: new Date(AT),
      };
      if (one.policy !== undefined) options.policy = one.policy;
      if (one.exit_status === 2) {
        await assert.rejects(appraise(report, options), AttestationError);
        return;
      }
      const { appraisal, summary } = await appraise(report, options);
      assert.deepEqual(appraisal, JSON.parse(said.stdout));
      assert.equal(appraisal.may_send_secret, one.may_send_secret ?? false);
      assert.ok(summary.startsWith(`verdict: ${appraisal.verdict}`), summary);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
}

test("a slip in an option's name is no silence", async () => {
  await assert.rejects(appraise(new Uint8Array(1184), { report_data: "00" }), /no such option/);
  await assert.rejects(appraise(7), /expected a Uint8Array/);
});
