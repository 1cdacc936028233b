// Each model: what is live, was and is wanted, whether it is in sync, and its versions, to switch to or go back to.

import { h } from "./dom.js";
import { bytes, count, t } from "./i18n.js";
import { badge } from "./icons.js";
import * as words from "./words.js";

const PAGE = 12;

export function models(state, may) {
  return Object.entries(state.status.models).map(([name, model]) => one(name, model, state, may));
}

function one(name, model, state, may) {
  const busy = state.status.operations.some((each) => each.model === name && each.kind !== "warm");
  const way = model.sync === "Synced" ? "ok" : model.sync === "OutOfSync" ? "warn" : "idle";
  return h("section", { key: `model ${name}`, class: "card model", "aria-labelledby": `model-${name}` },
    h("div", { class: "row" },
      h("h2", { id: `model-${name}` }, t("Model {name}", { name })),
      badge(words.tone(model.health), words.health(model.health)),
      badge(way, words.sync(model.sync)),
      may.write && model.previous
        ? h("button", { class: "right", disabled: busy, onclick: () => may.rollback(name, model) }, t("Roll back to {version}", { version: model.previous }))
        : null),
    h("dl", { class: "three" },
      term(t("live"), model.current ?? t("none"), "current"),
      term(t("previous"), model.previous ?? t("none"), "previous"),
      term(t("wanted"), model.desired ?? t("none"), model.desired !== model.current ? "differs" : "")),
    h("p", { class: "note" }, facts(model).join(" · ")),
    versions(name, model, state, may, busy));
}

const term = (title, text, kind) => h("div", { class: kind }, h("dt", null, title), h("dd", null, text));

function facts(model) {
  const { source } = model;
  return [
    model.link,
    model.verified ? t("verified") : t("not verified"),
    t("on this machine: {level}", { level: words.level(model.level) }),
    model.suspended ? t("paused: {who}", { who: model.suspended }) : "",
    model.window,
    source ? t("{kind} wants {version}", { kind: source.kind, version: source.version ?? "–" }) : "",
    source?.author ? t("commit by {author}", { author: source.author }) : "",
    source?.error ?? "",
  ].filter(Boolean);
}

// -- versions ---------------------------------------------------------------------------------------------------

const KINDS = {
  all: () => true,
  usable: (each) => each.complete && !each.quarantined,
  here: (each) => each.level === "data" || each.level === "pin",
  wrong: (each) => !each.complete || each.quarantined || each.changed,
};

function versions(name, model, state, may, busy) {
  const found = state.versions[name];
  const view = (state.view[name] ??= { text: "", kind: "all", shown: PAGE });
  if (!found) return h("p", { class: "note", "aria-busy": "true" }, t("Loading the versions …"));
  const again = h("button", { class: "quiet", onclick: () => may.look(name) }, t("Look again"));
  if (found.error) {
    return h("div", { class: "problem" }, h("p", null, t("The versions cannot be listed: {cause}", { cause: found.error })), again);
  }
  // Those that matter now stand first, however many there are.
  const matters = (each) => Number(each.version === model.current) * 4 + Number(each.version === model.desired) * 2 + Number(each.version === model.previous);
  const all = [...found.versions].sort((one, other) => matters(other) - matters(one));
  const chosen = all.filter((each) => KINDS[view.kind](each) && each.version.toLowerCase().includes(view.text.trim().toLowerCase()));
  const shown = chosen.slice(0, view.shown);
  const change = (values) => {
    Object.assign(view, { shown: PAGE }, values);
    may.draw();
  };
  return h("div", { class: "versions" },
    h("div", { class: "row filters" },
      h("h3", null, t("Versions")),
      h("label", null, h("span", { class: "hidden" }, t("Find a version")),
        h("input", { type: "search", placeholder: t("Find a version"), value: view.text, oninput: (event) => change({ text: event.target.value }) })),
      h("label", null, h("span", { class: "hidden" }, t("Which versions")),
        h("select", { value: view.kind, onchange: (event) => change({ kind: event.target.value }) },
          option("all", t("all"), view), option("usable", t("can be switched to"), view), option("here", t("on this machine"), view), option("wrong", t("not usable"), view))),
      h("span", { class: "note" }, t("{shown} of {all}", { shown: count(shown.length), all: count(all.length) })),
      again),
    found.unlisted ? h("p", { class: "problem" }, t("The bucket cannot be listed, these are on this machine: {cause}", { cause: found.unlisted })) : null,
    h("div", { class: "table", role: "group", tabindex: 0, "aria-label": t("Versions of {name}", { name }) },
      h("table", null,
        h("thead", null, h("tr", null, [t("Version"), t("State"), t("Size"), t("On this machine"), may.write ? t("Action") : null].filter(Boolean).map((each) => h("th", { scope: "col" }, each)))),
        h("tbody", null, shown.map((each) => row(name, model, each, may, busy))))),
    chosen.length > shown.length
      ? h("button", { class: "quiet", onclick: () => { view.shown += 4 * PAGE; may.draw(); } }, t("Show more ({count})", { count: count(chosen.length - shown.length) }))
      : null,
    !chosen.length ? h("p", { class: "note" }, t("No version matches.")) : null);
}

const option = (value, text, view) => h("option", { key: value, value, selected: view.kind === value ? true : null }, text);

function row(name, model, each, may, busy) {
  const roles = [each.role, each.version === model.desired && each.version !== model.current ? "wanted" : null].filter(Boolean);
  const isLive = each.version === model.current;
  const canSwitch = may.write && !isLive && each.complete && !each.quarantined;
  return h("tr", { key: each.version, class: isLive ? "live" : null },
    h("th", { scope: "row" }, h("span", { class: "version" }, each.version),
      roles.map((role) => h("span", { class: `badge ${role === "current" ? "ok" : "idle"}` }, words.role(role)))),
    cell(t("State"), h("span", null, usable(each)), each.problems.length ? h("details", null, h("summary", null, t("problems: {count}", { count: count(each.problem_count) })), h("ul", null, each.problems.slice(0, 10).map((problem) => h("li", null, problem)))) : null,
      each.changed ? h("p", { class: "note" }, each.changed) : null),
    cell(t("Size"), each.bytes || each.files ? t("{size}, {files} files", { size: bytes(each.bytes), files: count(each.files) }) : "–"),
    cell(t("On this machine"), here(each)),
    may.write
      ? cell(t("Action"), canSwitch
        ? h("button", { disabled: busy, "aria-label": t("Switch to {version}", { version: each.version }), onclick: () => may.switch(name, model, each.version) }, t("Switch"))
        : h("span", { class: "note" }, "–"))
      : null);
}

const cell = (label, ...content) => h("td", { "data-label": label }, content);

function usable(each) {
  if (each.quarantined) return badge("bad", t("quarantined"));
  if (!each.complete) return badge("warn", t("incomplete"));
  if (each.changed) return badge("warn", t("changed"));
  return badge("ok", each.verified ? t("complete, verified") : t("complete"));
}

function here(each) {
  const warmed = each.warmed_percent !== null && each.warmed_percent !== undefined ? t("warmed {percent} %", { percent: each.warmed_percent }) : "";
  const gone = each.in_bucket === false ? t("no longer in the bucket") : "";
  return [each.level ? words.level(each.level) : "", warmed, gone].filter(Boolean).join(" · ") || "–";
}
