// A program that uses all of the types; it is compiled and never run.
import { appraise, AttestationError, type Appraisal, type Finding, type Options } from "../dist/index.js";

const options: Options = {
  certificates: [new Uint8Array(3), "-----BEGIN CERTIFICATE-----"],
  measurement: "00".repeat(48),
  reportData: "00".repeat(64),
  at: new Date(),
};

export async function unlock(report: Uint8Array, send: (why: string) => void): Promise<Finding[]> {
  try {
    const { appraisal, summary } = await appraise(report, options);
    const outcome: "genuine" | "incomplete" | "refused" | "undecided" = appraisal.outcome;
    if (appraisal.may_send_secret) send(`${outcome}: ${summary}`);
    const failed = (of: Appraisal) => of.findings.filter((finding) => finding.status === "failed");
    return failed(appraisal);
  } catch (error) {
    if (error instanceof AttestationError) return [];
    throw error;
  }
}

// @ts-expect-error an expectation with a slip in its name would not be checked
appraise(new Uint8Array(1184), { report_data: "00" });
// @ts-expect-error what it says is not a truth value
const wrong: boolean = await appraise(new Uint8Array(1184));
export { wrong };
