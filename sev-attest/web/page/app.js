// The page around the verifier: files in, findings out. All text is set as text, never as markup.
"use strict";

const $ = (id) => document.getElementById(id);
const files = new Map();
const MAX_FILE = 4 << 20;

const verifier = (async () => {
  const text = atob(globalThis.SEV_ATTEST_WASM);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const { instance } = await WebAssembly.instantiate(bytes, {});
  return instance.exports;
})();

async function ask(request) {
  const { memory, alloc, verify, release } = await verifier;
  const question = new TextEncoder().encode(JSON.stringify(request));
  const at = alloc(question.length) >>> 0;
  if (at === 0) throw new Error("the files are too large");
  new Uint8Array(memory.buffer, at, question.length).set(question);
  const packed = BigInt.asUintN(64, verify(at, question.length));
  release(at, question.length);
  const [start, length] = [Number(packed >> 32n), Number(packed & 0xffffffffn)];
  const answer = new TextDecoder().decode(new Uint8Array(memory.buffer, start, length));
  release(start, length);
  return JSON.parse(answer);
}

function base64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  }
  return btoa(text);
}

function time() {
  const text = $("at").value.trim();
  if (text === "") return Math.floor(Date.now() / 1000);
  const milliseconds = Date.parse(text);
  if (Number.isNaN(milliseconds) || milliseconds < 0) throw new Error("time: expected as 2026-01-31T12:00:00Z");
  return Math.floor(milliseconds / 1000);
}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function finding({ check, what, expected, found, status, reason, required }) {
  const mark = { ok: "✓", failed: "✗", not_checked: required ? "?" : "–" }[status];
  const item = element("li", undefined, status + (required && status === "not_checked" ? " needed" : ""));
  const body = element("div");
  const title = element("div", what, "what");
  title.append(element("span", check, "id"));
  const value = element("div", found ?? "", "found");
  const rest = [expected && `expected ${expected}`, reason].filter(Boolean).join("; ");
  if (rest) value.append(element("span", found ? ` (${rest})` : rest));
  body.append(title, value);
  const sign = element("span", mark, "mark");
  sign.title = status.replace("_", " ");
  item.append(sign, body);
  return item;
}

function fields(list, value, name) {
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    if (name) list.append(element("dt", name.replaceAll("_", " "), "section"));
    const entries = Object.entries(value);
    const isObject = ([, inner]) => inner !== null && typeof inner === "object";
    for (const [key, inner] of [...entries.filter((e) => !isObject(e)), ...entries.filter(isObject)]) fields(list, inner, key);
  } else {
    list.append(element("dt", name.replaceAll("_", " ")), element("dd", String(value ?? "–")));
  }
}

function showVerdict(kind, title, detail) {
  $("verdict").className = kind;
  $("verdict").replaceChildren(title);
  if (detail) $("verdict").append(element("small", detail));
  $("result").hidden = false;
  document.body.dataset.outcome = kind;
}

function showError(message) {
  showVerdict("undecided", "Nothing was verified", message);
  for (const part of ["summary", "counts", "findings", "unchecked", "report", "raw"]) $(part).hidden = true;
  document.querySelector("#result h2").hidden = true;
}

function show({ error, appraisal, report, summary }) {
  if (error) return showError(error);
  const { outcome, findings, verdict, may_send_secret } = appraisal;
  const titles = { genuine: "Genuine", incomplete: "Genuine, but not enough was expected", refused: "Refused", undecided: "Undecided" };
  // Green is for what a secret may be sent to, and for nothing else.
  const open = outcome === "incomplete" || (outcome === "genuine" && !may_send_secret);
  showVerdict(open ? "open" : outcome, titles[outcome], verdict);
  $("summary").textContent = summary;
  document.querySelector("#result h2").hidden = false;
  const asked = findings.filter((f) => f.status !== "not_checked" || f.required);
  const unasked = findings.filter((f) => f.status === "not_checked" && !f.required);
  const order = (f) => (f.status === "failed" ? 0 : f.status === "not_checked" ? 1 : 2);
  asked.sort((a, b) => order(a) - order(b));
  const count = (status) => findings.filter((f) => f.status === status).length;
  $("counts").textContent = `${count("ok")} ok, ${count("failed")} failed, ${count("not_checked")} not checked; judged for ${appraisal.at}`;
  $("findings").replaceChildren(...asked.map(finding));
  $("unchecked").querySelector("summary").textContent = `${unasked.length} things that nobody asked about`;
  $("unchecked").querySelector("ol").replaceChildren(...unasked.map(finding));
  const list = $("report").querySelector("dl");
  list.replaceChildren();
  if (report) fields(list, report, "");
  $("raw").querySelector("pre").textContent = JSON.stringify(appraisal, null, 2);
  for (const part of ["summary", "counts", "findings", "unchecked", "raw"]) $(part).hidden = false;
  $("report").hidden = !report;
}

function showNames(kinds) {
  const kind = new Map((kinds ?? []).map((file) => [file.name, file.kind]));
  $("names").replaceChildren(
    ...[...files.keys()].map((name) => {
      const item = element("li");
      item.append(element("b", name), kind.has(name) ? ` ${kind.get(name)}` : "");
      const button = element("button", "×");
      button.title = `leave ${name} out`;
      button.addEventListener("click", () => { files.delete(name); judge(); });
      item.append(button);
      return item;
    }),
  );
}

let turn = 0;
async function judge() {
  const mine = ++turn;
  if (files.size === 0) { $("result").hidden = true; showNames(); return; }
  try {
    const answer = await ask({
      files: [...files].map(([name, data]) => ({ name, data: base64(data) })),
      measurement: $("measurement").value,
      report_data: $("report_data").value,
      host_data: $("host_data").value,
      any_guest: $("any_guest").checked,
      any_time: $("any_time").checked,
      allow_foreign_root: $("allow_foreign_root").checked,
      at: time(),
    });
    if (mine !== turn) return;
    showNames(answer.files);
    show(answer);
  } catch (error) {
    if (mine !== turn) return;
    showNames();
    showError(error.message);
  }
}

async function take(list) {
  for (const file of list) {
    if (file.size > MAX_FILE) { showError(`${file.name}: longer than ${MAX_FILE} bytes`); return; }
    files.set(file.name, new Uint8Array(await file.arrayBuffer()));
  }
  await judge();
}

$("files").addEventListener("change", async (event) => {
  await take(event.target.files);
  event.target.value = "";
});
for (const id of ["measurement", "report_data", "host_data", "at", "any_guest", "any_time", "allow_foreign_root"]) {
  $(id).addEventListener("input", judge);
}
for (const kind of ["dragover", "dragenter"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
