// The page: asks for everything every two seconds, and shows one incident where the address names it (#incident=ID).
// All that comes from topics goes into the page as text, never as markup.
"use strict";

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}
function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
const time = (text) => { const at = new Date(text); return isNaN(at) ? String(text) : at.toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" }); };
const number = (value) => value === null || value === undefined ? "–" : Number(value.toPrecision(4)).toString();
const tag = (kind) => kind ? node("span", { class: `tag ${kind}` }, kind) : null;
const VERDICTS = { confirmed: "a fault", rejected: "false alarm" };
const verdict = (one) => one.verdict ? node("span", { class: `tag ${one.verdict}` }, VERDICTS[one.verdict] + (one.by ? ` (${one.by})` : "")) : null;

function path(points) {  // breaks where a value is missing
  let drawn = "", pen = false;
  for (const [x, y] of points) {
    if (y === null || !isFinite(y)) { pen = false; continue; }
    drawn += `${pen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`; pen = true;
  }
  return drawn;
}

function spark(scores) {  // score against the threshold, which is 1
  const width = 240, height = 44, top = Math.max(1.25, ...scores.map((one) => one[1]));
  const up = (score) => height - 2 - (height - 6) * Math.min(score / top, 1);
  const across = (n) => scores.length > 1 ? n * width / (scores.length - 1) : width;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "score against threshold" });
  svg.append(shape("line", { x1: 0, x2: width, y1: up(1), y2: up(1), class: "limit" }), shape("path", { d: path(scores.map((one, n) => [across(n), up(one[1])])), class: "seen" }));
  return svg;
}

function windows(channel) {
  const seen = channel.observed_window || [], wanted = channel.expected_window || [];
  const all = [...seen, ...wanted].filter((value) => value !== null);
  if (!all.length) return null;
  const width = 360, height = 130, low = Math.min(...all), high = Math.max(...all), span = high - low || 1;
  const count = Math.max(seen.length, wanted.length);
  const up = (value) => value === null ? null : height - 18 - (height - 34) * (value - low) / span;
  const across = (n) => 4 + (width - 8) * (count > 1 ? n / (count - 1) : 1);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${channel.name}: readings and what was expected of them` });
  svg.append(shape("text", { x: 4, y: 11 }, number(high)), shape("text", { x: 4, y: height - 4 }, number(low)),
    shape("path", { d: path(wanted.map((value, n) => [across(n), up(value)])), class: "expected" }),
    shape("path", { d: path(seen.map((value, n) => [across(n), up(value)])), class: "seen" }));
  return svg;
}

function card(one) {
  return node("a", { class: `card ${one.severity}`, href: `#incident=${encodeURIComponent(one.id)}` }, node("b", {}, one.summary || `${one.stream}: ${one.kind}`),
    node("p", { class: "meta" }, tag(one.severity), ` ${one.kind} since ${time(one.opened)} `, verdict(one)));
}
function row(one) {
  return node("a", { class: "row", href: `#incident=${encodeURIComponent(one.id)}` }, node("span", {}, time(one.opened)), node("span", {}, one.kind || ""),
    node("span", { class: "text" }, one.summary || one.stream), verdict(one) || node("span", { class: "empty" }, one.like !== undefined ? `${Math.round(100 * one.like)} % alike, not judged` : "not judged"));
}
function fill(place, made, empty) { byId(place).replaceChildren(...(made.length ? made : [node("p", { class: "empty" }, empty)])); }

async function ask(address) {
  const answer = await fetch(address, { cache: "no-store" });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

let judging = false, canJudge = false;
const chosen = () => { const found = /^#incident=(.+)$/.exec(location.hash); return found ? decodeURIComponent(found[1]) : null; };

async function judge(id, what) {
  if (judging) return;
  judging = true;
  const said = byId("said");
  said.className = ""; said.textContent = "telling …";
  try {
    const answer = await fetch("/api/judge", { method: "POST", headers: { "Content-Type": "application/json", "X-Residual": "page" },
      body: JSON.stringify({ incident: id, what, by: byId("by").value.trim() || null }) });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    said.textContent = (await answer.json()).said;
  } catch (error) { said.className = "error"; said.textContent = error.message; }
  judging = false;
  setTimeout(refresh, 600);
}

function detail(one) {
  const press = (what, label, on) => { const made = node("button", { type: "button", "data-what": what, "aria-pressed": String(on) }, label); made.disabled = !canJudge;
    made.addEventListener("click", () => judge(one.id, what)); return made; };
  const charts = (one.channels || []).map((channel) => node("figure", {}, node("figcaption", {}, node("b", {}, channel.name),
    ` ${number(channel.observed)}${channel.unit ? " " + channel.unit : ""}, expected ${number(channel.expected)} · ${Math.round(100 * channel.share)} % of the error`), windows(channel)));
  if (one.image && one.image.map) charts.push(node("figure", {}, node("figcaption", {}, `largest error at column ${one.image.x}, row ${one.image.y}`),
    node("img", { class: "image", alt: "where in the image the errors are", src: `data:image/png;base64,${one.image.map}` })));
  const said = byId("said") ? byId("said") : node("p", { id: "said", role: "status" });
  byId("one").replaceChildren(
    node("p", {}, node("a", { href: "#" }, "← all incidents")),
    node("p", { class: "why" }, node("b", {}, one.summary || one.stream)),
    node("p", { class: "meta" }, tag(one.severity), ` ${one.kind} · ${one.stream} · ${one.open ? "open" : "over" + (one.ended ? " (" + one.ended + ")" : "")} · since ${time(one.opened)} · score ${number(one.score)} thresholds `, verdict(one)),
    node("div", { class: "actions" }, press("true", "It was a fault", one.verdict === "confirmed"), press("false", "False alarm", one.verdict === "rejected"), press("accept", "Accept as new normal", false)),
    said,
    node("h2", {}, "Why"), node("p", { class: "key" }, node("i", { class: "s" }, "— read"), node("i", { class: "e" }, "- - expected")),
    node("div", { class: "charts" }, ...charts),
    ...(one.scores.length ? [node("h2", {}, "Score of the stream"), node("div", { class: "stream" }, spark(one.scores))] : []),
    node("h2", {}, "Most like it, in the past"), node("div", { id: "nearest", class: "rows" }, ...(one.nearest.length ? one.nearest.map(row) : [node("p", { class: "empty" }, "nothing yet")])));
}

async function refresh() {
  const status = byId("status"), id = chosen();
  try {
    const state = await ask("/api/state");
    canJudge = state.can_judge;
    const models = Object.entries(state.models).map(([group, model]) => `${group}: ${model.slice(0, 10)}`).join(", ");
    status.className = "";
    status.replaceChildren(`${state.open.length} open · ${state.streams_total} streams` + (models ? ` · model ${models} ` : " "), state.has_report ? node("a", { href: "/report" }, "its report") : "");
    document.title = state.open.length ? `(${state.open.length}) Residual` : "Residual";
    byId("list").hidden = id !== null; byId("one").hidden = id === null;
    if (id !== null) { if (!judging) detail(await ask(`/api/incident/${encodeURIComponent(id)}`)); return; }
    byId("open-count").textContent = state.open.length; byId("past-count").textContent = state.past.length;
    byId("stream-count").textContent = state.streams_total ? `${state.streams.length} of ${state.streams_total}, the worst first` : "";
    fill("open", state.open.map(card), "nothing is wrong");
    fill("streams", state.streams.map((one) => node("div", { class: `stream${one.open ? " off" : ""}` }, node("div", {}, node("span", { title: one.stream }, one.stream), node("span", {}, number(one.scores.at(-1)[1]))), spark(one.scores))),
      "no scores: let the detectors write them (--scores-topic scores)");
    fill("past", state.past.map(row), "none yet");
  } catch (error) { status.className = "bad"; status.textContent = `not connected: ${error.message}`; }
}

byId("by").value = (() => { try { return localStorage.getItem("by") || ""; } catch { return ""; } })();
byId("by").addEventListener("change", () => { try { localStorage.setItem("by", byId("by").value); } catch { /* private window */ } });
addEventListener("hashchange", () => { const said = byId("said"); if (said) said.remove(); refresh(); });
refresh();
setInterval(refresh, 2000);
