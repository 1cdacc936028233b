// The page: what is known, the stream that keeps it true, and where each part is drawn.

import * as api from "./api.js";
import { outboxes, traffic } from "./charts.js";
import * as dialogs from "./dialogs.js";
import { element, h, patch } from "./dom.js";
import { headline, verdict } from "./headline.js";
import { LANGUAGES, current, duration, locale, preferred, t, use } from "./i18n.js";
import { light } from "./icons.js";
import { events, history } from "./journal.js";
import { models } from "./models.js";
import { operations } from "./operation.js";
import { topology } from "./topology.js";

const EVENTS = 50;
const HISTORY = 50;
const MOST_EVENTS = 2000; // kept by a page that stays open for weeks
const TRAFFIC_MS = 5_000;
const DETAILS_MS = 2_000;
const HIDDEN_MS = 60_000; // a browser has few connections to one host: a page that nobody sees gives its own back

const state = {
  access: "unknown", // open: it may be read; login: not without a token; closed: no tokens are configured
  session: { name: null, role: null, login: false },
  status: null,
  statusAt: 0,
  heardAt: 0,
  connected: false,
  explained: null,
  events: [],
  hasOlderEvents: false,
  history: [],
  historyNext: null,
  shownHistory: 10,
  versions: {},
  view: {},
  details: {},
  traffic: null,
  login: { busy: false, error: null },
  notice: "",
};

// -- what changes something -------------------------------------------------------------------------------------

const may = {
  get write() {
    return state.access === "open" && (canWrite() || (state.session.login && !state.session.name));
  },
  draw: () => draw(),
  look: (name) => loadVersions(name),
  olderEvents,
  olderHistory,
  switch: (name, model, version) => loggedIn(() => dialogs.confirm({
    heading: t("Switch {name}?", { name }), from: model.current, to: version, path: "/api/v1/switch", body: { model: name, version },
    button: t("Switch to {version}", { version }), plan: true, asksReason: true,
  }, changed)),
  rollback: (name, model) => loggedIn(() => dialogs.confirm({
    heading: t("Roll back {name}?", { name }), from: model.current, to: model.previous, path: "/api/v1/rollback", body: { model: name },
    button: t("Roll back to {version}", { version: model.previous }), plan: true, asksReason: true,
  }, changed)),
  cancel: (operation) => loggedIn(() => dialogs.confirm({
    heading: t("Cancel this operation?"), from: operation.from, to: operation.to, path: "/api/v1/cancel", body: { id: operation.id },
    note: operation.kind === "schedule" ? t("It will not begin.") : t("What it has changed is undone."), button: t("Cancel the operation"), back: t("Let it continue"), isDanger: true,
  }, changed)),
};

const canWrite = () => state.session.role === "operator" && api.hasProof();

function loggedIn(work) {
  if (canWrite()) work();
  else dialogs.login(state, async () => {
    await loadSession();
    draw();
    if (canWrite()) work();
    else state.notice = t("This token may only read.");
    draw();
  });
}

function changed() {
  loadHistory();
  draw();
}

async function logOut() {
  try {
    await api.logout();
  } catch (error) {
    state.notice = dialogs.failed(error);
  }
  await begin();
}

// -- loading ----------------------------------------------------------------------------------------------------

const quietly = async (work) => {
  try {
    return await work();
  } catch {
    return null; // the stream shows that mountd does not answer, and all is loaded again once it does
  }
};

async function loadSession() {
  try {
    state.session = await api.get("/api/v1/session");
    state.access = "open";
  } catch (error) {
    if (error.status === 401) state.access = "login";
    else if (error.status === 403) state.access = "closed";
    else throw error;
  }
}

async function loadEvents() {
  const found = await quietly(() => api.get(`/api/v1/events?limit=${EVENTS}`));
  if (!found) return;
  state.events = found.events;
  state.hasOlderEvents = found.events.length === EVENTS;
}

async function olderEvents() {
  const [oldest] = state.events;
  const found = oldest && (await quietly(() => api.get(`/api/v1/events?limit=${EVENTS}&before=${oldest.id}`)));
  if (!found) return;
  state.events = [...found.events, ...state.events];
  state.hasOlderEvents = found.events.length === EVENTS;
  draw();
}

async function loadHistory() {
  const found = await quietly(() => api.get(`/api/v1/history?limit=${HISTORY}`));
  if (!found) return;
  state.history = found.history;
  state.historyNext = found.next;
  draw();
}

async function olderHistory() {
  state.shownHistory += 30;
  if (state.shownHistory > state.history.length && state.historyNext !== null) {
    const found = await quietly(() => api.get(`/api/v1/history?limit=${HISTORY}&before=${state.historyNext}`));
    if (found) {
      state.history = [...state.history, ...found.history];
      state.historyNext = found.next;
    }
  }
  draw();
}

const looking = new Map(); // model → whether to look once more after the look that is under way

async function loadVersions(name) {
  if (looking.has(name)) {
    looking.set(name, true);
    return;
  }
  do {
    looking.set(name, false);
    try {
      const found = await api.get(`/api/v1/versions?model=${encodeURIComponent(name)}`);
      found.versions.reverse(); // the newest name first
      state.versions[name] = found;
    } catch (error) {
      state.versions[name] = { error: dialogs.failed(error) };
    }
    draw();
  } while (looking.get(name));
  looking.delete(name);
}

let explaining = false;
async function loadExplained() {
  if (explaining) return;
  explaining = true;
  const found = await quietly(() => api.get(`/api/v1/explain?lang=${locale()}`));
  state.explained = found;
  explaining = false;
  draw();
}

async function loadTraffic() {
  if (document.hidden || state.access !== "open" || !state.connected) return;
  try {
    state.traffic = await api.get("/api/v1/traffic");
  } catch (error) {
    state.traffic = null;
    if (error.status === 404) clearInterval(trafficTimer);
  }
  draw();
}

let trafficTimer = null;

async function loadDetails() {
  const running = state.status?.operations ?? [];
  for (const { id, step } of running) {
    const [now, past] = await Promise.all([quietly(() => api.get(`/api/v1/operations/${id}`)), quietly(() => api.get(`/api/v1/history/${id}`))]);
    if (now) state.details[id] = { ...now, steps: past?.steps ?? [], at: Date.now(), of: step };
  }
  for (const id of Object.keys(state.details)) if (!running.some((each) => String(each.id) === id)) delete state.details[id];
  if (running.length) draw();
}

// -- the stream -------------------------------------------------------------------------------------------------

const stream = new api.Stream({
  status(found) {
    const before = state.status;
    state.status = found;
    state.statusAt = Date.now();
    follow(before, found);
    draw();
  },
  event(event) {
    if (state.events.some((each) => each.id === event.id)) return;
    state.events = [...state.events, event].slice(-MOST_EVENTS);
    draw();
  },
  connection(connected) {
    state.heardAt = connected ? Date.now() : state.heardAt;
    if (connected === state.connected) return;
    state.connected = connected;
    draw();
  },
  refused: () => begin(),
});

// What else has to be loaded after a change of the status.
function follow(before, now) {
  const ids = (status) => JSON.stringify(status?.operations.map((each) => each.id) ?? null);
  if (!before) {
    loadDetails();
  } else if (ids(before) !== ids(now)) {
    loadHistory();
    loadDetails();
  } else if (JSON.stringify(now.operations.map((each) => each.step)) !== JSON.stringify(before.operations.map((each) => each.step))) {
    loadDetails();
  }
  for (const [name, model] of Object.entries(now.models)) {
    const was = before?.models[name];
    const differs = !was || ["current", "previous", "level", "pinned"].some((key) => was[key] !== model[key]);
    if (differs || ids(before) !== ids(now)) loadVersions(name);
  }
  const why = (status) => JSON.stringify([status?.ready, status?.health, status?.reasons]);
  if (why(before) !== why(now)) loadExplained();
}

// -- drawing ----------------------------------------------------------------------------------------------------

let planned = false;
function draw() {
  if (planned) return;
  planned = true;
  const later = document.hidden ? (work) => setTimeout(work, 200) : requestAnimationFrame;
  later(() => {
    planned = false;
    drawNow();
  });
}

function drawNow() {
  element("skip").textContent = t("Skip to content");
  patch(element("header"), header());
  patch(element("main"), content());
  patch(element("footer"), footer());
  dialogs.redraw();
  const shown = state.status && state.access === "open" && (state.connected || !document.hidden);
  document.title = shown ? `${{ ok: "✓", busy: "…", warn: "!", bad: "✗" }[verdict(state.status).tone] ?? ""} ${verdict(state.status).text} · mountd` : "mountd";
}

function header() {
  const { name, role } = state.session;
  const isIn = state.access === "open" && name && api.hasProof();
  return [
    h("div", { class: "brand" }, h("img", { src: "/dashboard/icon.svg", alt: "", width: 28, height: 28 }), h("span", null, "mountd")),
    state.access === "open" ? connection() : null,
    h("div", { class: "right" },
      state.access === "open" && !isIn && state.status
        ? state.session.login
          ? h("button", { key: "login", class: "main", onclick: () => dialogs.login(state, begin) }, t("Log in"))
          : h("button", { key: "how", class: "quiet", onclick: dialogs.howTo }, t("Read-only: why?"))
        : null,
      isIn ? h("span", { key: "who", class: "who" }, t("{name} ({role})", { name, role: role === "operator" ? t("operator") : t("reader") })) : null,
      isIn ? h("button", { key: "logout", class: "quiet", onclick: logOut }, t("Log out")) : null,
      h("label", { key: "language" }, h("span", { class: "hidden" }, t("Language")),
        h("select", { id: "language", onchange: (event) => choose(event.target.value) },
          Object.entries(LANGUAGES).map(([code, text]) => h("option", { key: code, value: code, lang: code, selected: code === current() ? true : null }, text))))),
  ];
}

function connection() {
  const age_s = state.heardAt ? (Date.now() - state.heardAt) / 1000 : null;
  if (state.connected) return h("span", { class: "connection ok" }, light("ok", 16), h("span", null, t("connected")));
  const old = age_s === null ? t("connecting …") : t("Not connected: what you see is {duration} old", { duration: duration(age_s) });
  return h("span", { class: `connection ${age_s === null ? "idle" : "bad"}` }, light(age_s === null ? "busy" : "bad", 16), h("span", null, old));
}

function content() {
  if (state.access === "login") {
    return h("section", { key: "login", class: "card alone" }, h("h1", null, t("Log in to see this mountd")), dialogs.loginForm(state, (isIn) => (isIn ? begin() : draw())));
  }
  if (state.access === "closed") {
    return h("section", { key: "closed", class: "card alone" }, h("h1", null, t("This mountd shows nothing to other machines")),
      h("p", null, t("No tokens are configured (http.tokens), so reading works on its own machine only.")), h("pre", null, "http:\n  tokens: {file: /etc/mountd/tokens}"));
  }
  if (!state.status) return h("p", { key: "wait", class: "note alone", "aria-busy": "true" }, state.connected ? t("Loading …") : t("mountd does not answer yet; this page keeps trying."));
  const running = operations(state, may);
  return [
    state.notice ? h("p", { key: "notice", class: "notice", role: "alert" }, state.notice) : null,
    h("div", { key: "top", class: state.connected ? "top" : "top old" }, headline(state)),
    running,
    h("section", { key: "topology", class: "card way-of-data", "aria-labelledby": "topology-title" },
      h("h2", { id: "topology-title" }, t("From the bucket to the app")),
      h("div", { id: "topology" }, topology(state.status, width()))),
    h("div", { key: "columns", class: "columns" },
      h("div", { class: "wide" }, models(state, may), history(state, may)),
      h("div", { class: "narrow" }, traffic(state), outboxes(state), events(state, may))),
  ];
}

const width = () => Math.max(260, (element("topology") ?? element("main")).clientWidth || 1200);

function footer() {
  const status = state.status;
  return status && state.access === "open"
    ? h("p", null, t("mountd {version}, process {pid}, configuration {source}", { version: status.version, pid: status.pid, source: status.config.source || "–" }))
    : null;
}

// -- start -------------------------------------------------------------------------------------------------------

async function choose(wanted) {
  await use(wanted, { keep: true });
  if (state.access === "open") loadExplained();
  draw();
}

// One after the other: each sees the session as it is when it begins.
let beginning = Promise.resolve();
function begin() {
  beginning = beginning.then(start);
  return beginning;
}

async function start() {
  try {
    await loadSession();
  } catch {
    state.connected = false;
    setTimeout(begin, 2000);
    draw();
    return;
  }
  if (state.access !== "open") {
    stream.close();
    state.status = null;
    draw();
    return;
  }
  state.notice = "";
  const loading = loadEvents();
  loadHistory();
  await loading;
  stream.open(state.events.at(-1)?.id);
  clearInterval(trafficTimer);
  trafficTimer = setInterval(loadTraffic, TRAFFIC_MS);
  setTimeout(loadTraffic, 300);
  draw();
}

let hiding = null;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) {
    hiding = setTimeout(() => {
      stream.close();
      state.connected = false;
      drawNow();
    }, HIDDEN_MS);
  } else if (!stream.source) begin();
});
addEventListener("resize", draw);
setInterval(() => {
  if (!document.hidden) draw(); // ages and what is left of an operation
}, 1000);
setInterval(() => {
  if (!document.hidden && state.status?.operations.length) loadDetails();
}, DETAILS_MS);

await use(preferred());
draw();
await begin();
