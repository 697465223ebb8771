/** What is expected of a report. What is left out is not expected. */
export interface Options {
  /** Certificates and revocation lists in any form: DER, PEM, AMD's tables, Azure's THIM answers. */
  certificates?: (Uint8Array | string)[];
  /** A policy file of `sev-attest policy init` (TOML). The other options override it. */
  policy?: string | Uint8Array;
  /** Launch digest: 96 hexadecimal digits. */
  measurement?: string;
  /** Report data: 128 hexadecimal digits; or a nonce of 8 bytes and more, with zeros after it. */
  reportData?: string;
  /** Host data: 64 hexadecimal digits. */
  hostData?: string;
  /** Let any guest do: without this, a launch digest must be expected. */
  anyGuest?: boolean;
  /** Let a report of any time do: without this, report data must be expected. */
  anyTime?: boolean;
  /** Accept a root that is not AMD's, for simulations. No secret may be sent then. */
  allowForeignRoot?: boolean;
  /** The time to judge validity at; now by default. */
  at?: Date;
}

/** One check. */
export interface Finding {
  check: string;
  what: string;
  expected: string | null;
  found: string | null;
  status: "ok" | "failed" | "not_checked";
  reason: string | null;
  required: boolean;
}

/** `sev-attest verify --json`. New keys may come; a change beyond that makes a new schema. */
export interface Appraisal {
  schema: "sev-attest/verify/2";
  /** genuine: and as expected; incomplete: genuine, but too little was expected. */
  outcome: "genuine" | "incomplete" | "refused" | "undecided";
  verdict: string;
  /** Of the command: 0 genuine, 1 refused, 3 undecided, 4 incomplete. */
  exit_status: 0 | 1 | 3 | 4;
  at: string;
  root: "amd" | "foreign" | null;
  root_product: string | null;
  measurement_expected: boolean;
  report_data_expected: boolean;
  expectations: { measurement: string; report_data: string };
  missing: string[];
  /** The one answer to the question whether a secret may be sent to the guest. */
  may_send_secret: boolean;
  /** Why not. */
  withheld: string[] | null;
  advisories_of: string;
  findings: Finding[];
  notes: string[];
}

export interface Result {
  appraisal: Appraisal;
  /** The report's fields, as `sev-attest show --json`; null where its version is unknown. */
  report: unknown;
  /** The verdict and what decides, in a screenful of text. */
  summary: string;
}

/** The evidence could not be read, or an option is mistaken. */
export class AttestationError extends Error {}

/**
 * Judges a report, in any form that tools and clouds hand out. That it returns says nothing: ask
 * `appraisal.may_send_secret`, or `appraisal.outcome`.
 */
export function appraise(report: Uint8Array | string, options?: Options): Promise<Result>;
