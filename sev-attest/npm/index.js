// The verifier as a module of JavaScript. It imports nothing but its own WebAssembly.
import wasm from "./wasm.js";

/** What could not be judged: unreadable evidence, or a mistaken option. */
export class AttestationError extends Error {
  constructor(message) {
    super(message);
    this.name = "AttestationError";
  }
}

let loaded;
const load = () => (loaded ??= (async () => {
  const bytes = Uint8Array.from(atob(wasm), (letter) => letter.charCodeAt(0));
  const { instance } = await WebAssembly.instantiate(bytes, {});
  return instance.exports;
})());

async function ask(request) {
  const { memory, alloc, verify, release } = await load();
  const question = new TextEncoder().encode(JSON.stringify(request));
  const at = alloc(question.length) >>> 0;
  if (at === 0) throw new AttestationError("the input is too large");
  new Uint8Array(memory.buffer, at, question.length).set(question);
  const packed = BigInt.asUintN(64, verify(at, question.length));
  release(at, question.length);
  const [start, length] = [Number(packed >> 32n), Number(packed & 0xffffffffn)];
  if (start === 0) throw new AttestationError("the answer is too large");
  const answer = new TextDecoder().decode(new Uint8Array(memory.buffer, start, length));
  release(start, length);
  return JSON.parse(answer);
}

function base64(name, bytes) {
  const array = typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes;
  if (!(array instanceof Uint8Array)) throw new TypeError(`${name}: expected a Uint8Array or a string`);
  let text = "";
  for (let i = 0; i < array.length; i += 0x8000) {
    text += String.fromCharCode(...array.subarray(i, i + 0x8000));
  }
  return btoa(text);
}

const OPTIONS = ["certificates", "policy", "measurement", "reportData", "hostData", "anyGuest", "anyTime",
  "allowForeignRoot", "at"];

/** Judges a report; see index.d.ts. */
export async function appraise(report, options = {}) {
  for (const name of Object.keys(options)) {
    // an expectation with a slip in its name would not be checked
    if (!OPTIONS.includes(name)) throw new TypeError(`${name}: no such option; there are ${OPTIONS.join(", ")}`);
  }
  const { certificates = [], policy, at = new Date() } = options;
  const seconds = Math.floor(at.getTime() / 1000);
  if (!(seconds >= 0)) throw new TypeError("at: expected a Date after 1970");
  const files = [{ name: "report", data: base64("report", report) }];
  certificates.forEach((bytes, i) => files.push({ name: `certificates[${i}]`, data: base64("certificates", bytes) }));
  if (policy !== undefined) files.push({ name: "policy.toml", data: base64("policy", policy) });
  const answer = await ask({
    files,
    measurement: options.measurement ?? "",
    report_data: options.reportData ?? "",
    host_data: options.hostData ?? "",
    any_guest: options.anyGuest ?? false,
    any_time: options.anyTime ?? false,
    allow_foreign_root: options.allowForeignRoot ?? false,
    at: seconds,
  });
  if (answer.error !== null) throw new AttestationError(answer.error);
  const { appraisal, report: fields, summary } = answer;
  return { appraisal, report: fields, summary };
}
