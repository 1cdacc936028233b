// What was: operations with who, when, from where to where and the result; and events.

import { h } from "./dom.js";
import { clock, duration, exact, t } from "./i18n.js";
import { badge } from "./icons.js";
import * as words from "./words.js";

const when = (time) => h("time", { datetime: time, title: exact(time) }, clock(time));
const cell = (label, ...content) => h("td", { "data-label": label }, content);

export function history(state, may) {
  const rows = state.history.slice(0, state.shownHistory);
  const hasOlder = state.history.length > rows.length || state.historyNext !== null;
  return h("section", { class: "card history", "aria-labelledby": "history-title" },
    h("h2", { id: "history-title" }, t("History")),
    rows.length
      ? h("div", { class: "table", role: "group", tabindex: 0, "aria-label": t("History") },
        h("table", null,
          h("thead", null, h("tr", null, [t("When"), t("What"), t("From → to"), t("Who"), t("Result")].map((each) => h("th", { scope: "col" }, each)))),
          h("tbody", null, rows.map(operation))))
      : h("p", { class: "note" }, t("No operation yet.")),
    hasOlder ? h("button", { class: "quiet", onclick: may.olderHistory }, t("Older")) : null);
}

function operation(each) {
  const way = each.kind === "warm" || each.kind === "drill" ? each.to : `${each.from ?? "–"} → ${each.to}`;
  const took = each.duration_s === null ? "" : duration(each.duration_s);
  const why = each.error?.text ?? each.cause;
  return h("tr", { key: each.id },
    cell(t("When"), when(each.finished ?? each.started)),
    cell(t("What"), h("span", null, words.kind(each.kind)), h("span", { class: "note" }, ` ${each.model}`)),
    cell(t("From → to"), h("span", { class: "version" }, way)),
    cell(t("Who"), h("span", null, each.operator), each.reason ? h("p", { class: "note said" }, each.reason) : null),
    cell(t("Result"), each.result ? badge(words.resultTone(each.result), words.result(each.result)) : badge("busy", t("running")),
      took ? h("span", { class: "note took" }, took) : null,
      why ? h("p", { class: "note said" }, why) : null));
}

export function events(state, may) {
  return h("section", { class: "card events", "aria-labelledby": "events-title" },
    h("h2", { id: "events-title" }, t("Events")),
    state.events.length
      ? h("div", { class: "scroll", role: "group", tabindex: 0, "aria-label": t("Events") },
        h("ol", null, [...state.events].reverse().map((each) =>
          h("li", { key: each.id },
            when(each.time), h("span", { class: "what" }, words.code(each.code)), h("span", { class: "object" }, each.object), h("span", { class: "text" }, each.text)))))
      : h("p", { class: "note" }, t("No event yet.")),
    state.hasOlderEvents ? h("button", { class: "quiet", onclick: may.olderEvents }, t("Older")) : null);
}
