// What runs now: its steps, how far it is, how long it may still take, and the button that cancels it.

import { h } from "./dom.js";
import { ago, bytes, duration, exact, rate, t } from "./i18n.js";
import { badge, light } from "./icons.js";
import * as words from "./words.js";

const ORDER = ["preflight", "warm", "verify", "stop", "flip", "start", "ready", "gates", "watch", "commit"];
const OF_APPS = new Set(["stop", "start", "ready", "watch"]);
const UNDO = ["stop-new", "flip-back", "start-old"];

// How long still, in words: by what was measured, else what the step may take at most.
export function leftOf(operation, state) {
  const seen_s = (Date.now() - state.statusAt) / 1000;
  if (operation.eta_s !== null) return t("about {duration} left", { duration: duration(operation.eta_s - seen_s) });
  const details = state.details[operation.id];
  if (details?.limit_s) {
    const passed_s = details.step_s + (Date.now() - details.at) / 1000;
    return t("at most {duration} left", { duration: duration(details.limit_s - passed_s) });
  }
  return t("running");
}

export function operations(state, may) {
  const { status } = state;
  const running = status.operations.map((each) => one(each, state, may));
  const loading = Object.entries(status.models).filter(([, model]) => model.loading);
  const loads = loading
    .filter(([name, model]) => !status.operations.some((each) => each.model === name && each.to === model.loading.version))
    .map(([name, model]) => load(name, model.loading));
  const waiting = status.scheduled.map((each) => scheduled(each, may));
  if (!running.length && !loads.length && !waiting.length) return null;
  return h("section", { class: "card operations", "aria-labelledby": "operations-title" },
    h("h2", { id: "operations-title" }, t("In progress")), running, loads, waiting);
}

function one(operation, state, may) {
  const details = state.details[operation.id];
  const isDrill = operation.kind === "drill";
  const way = operation.kind === "warm" || isDrill ? operation.to : `${operation.from ?? "–"} → ${operation.to}`;
  const percent = operation.percent;
  return h("article", { key: operation.id, class: "operation" },
    h("div", { class: "row" },
      h("h3", null, `${words.kind(operation.kind)}: ${operation.model} `, h("span", { class: "way" }, way)),
      h("span", { class: "left" }, leftOf(operation, state)),
      may.write ? h("button", { class: "danger", onclick: () => may.cancel(operation) }, t("Cancel")) : null),
    h("p", { class: "note" }, t("by {operator}, began {ago}", { operator: operation.operator, ago: ago(operation.started) }),
      operation.bytes_per_s ? ` · ${rate(operation.bytes_per_s)}` : null,
      details?.waits_for ? ` · ${t("waits for {name}", { name: details.waits_for })}` : null),
    h("progress", { max: 100, value: percent ?? null, "aria-label": t("Progress of this step") }),
    isDrill ? h("p", { class: "note" }, words.step(operation.step)) : steps(operation, state, details),
    details?.said ? h("pre", { class: "said" }, details.said) : null);
}

function steps(operation, state, details) {
  const known = new Map((details?.steps ?? []).map((each) => [each.step, each]));
  const hasApps = Object.values(state.status.apps).some((app) => app.needs.includes(operation.model));
  const isWarm = operation.kind === "warm";
  const order = ORDER.filter((step) => {
    if (known.has(step) || step === operation.step) return true;
    if (isWarm) return step === "preflight" || step === "warm";
    return step !== "gates" && (hasApps || !OF_APPS.has(step));
  });
  const all = [...order, ...UNDO.filter((step) => known.has(step) || step === operation.step)];
  const undoes = UNDO.includes(operation.step);
  return h("ol", { class: "steps" }, all.map((step) => {
    const found = known.get(step);
    const isNow = step === operation.step;
    const outcome = isNow ? "now" : found?.outcome ?? (undoes && !found ? "left-out" : "to-come");
    const tone = { now: "busy", done: "ok", failed: "bad", cancelled: "idle", interrupted: "warn" }[outcome];
    const told = { now: t("now"), done: t("done"), failed: t("failed"), cancelled: t("cancelled"), interrupted: t("interrupted"), "to-come": t("to come"), "left-out": t("left out") }[outcome] ?? outcome;
    return h("li", { key: step, class: outcome, "aria-current": isNow ? "step" : null },
      tone ? light(tone, 16) : h("span", { class: "dot", "aria-hidden": "true" }),
      h("span", null, words.step(step)), h("span", { class: "hidden" }, `: ${told}`),
      found?.duration_s >= 0.5 ? h("span", { class: "took" }, ` ${duration(found.duration_s)}`) : null);
  }));
}

function load(name, loading) {
  const left = loading.eta_s === null ? t("time left not known") : t("about {duration} left", { duration: duration(loading.eta_s) });
  return h("article", { key: `load ${name}`, class: "operation" },
    h("div", { class: "row" },
      h("h3", null, `${t("loading data")}: ${name} `, h("span", { class: "way" }, loading.version)),
      h("span", { class: "left" }, left)),
    h("p", { class: "note" }, [
      words.level(loading.level),
      t("{done} of {total}", { done: bytes(loading.bytes_done), total: bytes(loading.bytes_total) }),
      loading.bytes_per_s ? rate(loading.bytes_per_s) : "",
      loading.waits_for ? t("waits: {cause}", { cause: loading.waits_for }) : "",
    ].filter(Boolean).join(" · ")),
    h("progress", { max: 100, value: loading.percent, "aria-label": t("loading {version}: {percent} %", loading) }));
}

function scheduled(each, may) {
  return h("article", { key: `scheduled ${each.id}`, class: "operation" },
    h("div", { class: "row" },
      h("h3", null, `${words.kind("schedule")}: ${each.model} `, h("span", { class: "way" }, `→ ${each.version}`)),
      badge("idle", exact(each.due)),
      may.write ? h("button", { class: "danger", onclick: () => may.cancel({ ...each, kind: "schedule", to: each.version, from: null }) }, t("Cancel")) : null),
    h("p", { class: "note" }, t("by {operator}", each), each.reason ? ` · ${each.reason}` : null, each.waits ? ` · ${t("waits: {cause}", { cause: each.waits })}` : null));
}
