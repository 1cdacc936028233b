// The first look: is the service well, why not and what to do; what is live, who changed it last, what runs now.

import { h } from "./dom.js";
import { ago, duration, exact, t } from "./i18n.js";
import { light } from "./icons.js";
import { leftOf } from "./operation.js";
import * as words from "./words.js";

// The verdict in words, and its tone.
export function verdict(status) {
  const { ready, health } = status;
  if (ready && health === "Healthy") return { tone: "ok", text: t("The service is well") };
  if (ready && health === "Suspended") return { tone: "ok", text: t("The service is well; automatic changes are paused") };
  if (ready && health === "Progressing") return { tone: "busy", text: t("The service is running, and work is in progress") };
  if (ready) return { tone: "warn", text: t("The service is running, but something is wrong") };
  if (status.operations.some((each) => each.kind !== "warm")) return { tone: "busy", text: t("The service is changing its version: not ready yet") };
  if (health === "Progressing") return { tone: "busy", text: t("The service is starting: not ready yet") };
  return { tone: "bad", text: t("The service is not ready") };
}

// What is nearest to the cause: as `explain` has it, else the first reason.
export function cause(status, explained) {
  if (explained?.root) return explained.root;
  const [first] = status.reasons;
  return first ? { ...first, evidence: [], command: "" } : null;
}

export function headline(state) {
  const { status, explained, history } = state;
  const seen = verdict(status);
  const found = state.connected ? seen : { tone: "warn", text: t("Not connected. When last seen: {verdict}", { verdict: seen.text }) };
  const root = seen.tone === "ok" && status.health === "Healthy" ? null : cause(status, explained);
  return h("section", { class: `card headline ${found.tone}`, "aria-labelledby": "verdict" },
    h("div", { class: "verdict" },
      light(found.tone, 44),
      h("div", null,
        h("div", { role: "status", "aria-live": "polite", "aria-atomic": "true" }, h("h1", { id: "verdict" }, found.text)),
        h("p", { class: "sub" }, subtitle(status)))),
    root && reason(root, status, explained),
    h("dl", { class: "facts" },
      fact("live", t("Live now"), live(status)),
      fact("last", t("Last change"), lastChange(history)),
      fact("now", t("In progress"), inProgress(state))));
}

function subtitle(status) {
  const up = t("mountd {version}, up {duration}", { version: status.version, duration: duration(status.uptime_s) });
  return `${t("Health: {health}", { health: words.health(status.health) })} · ${up}`;
}

function reason(root, status, explained) {
  const others = explained?.root ? explained.others : status.reasons.slice(1);
  const chain = explained?.root ? explained.chain : []; // from what is seen down to the root
  return h("div", { class: "reason", id: "reason" },
    h("p", { class: "why" }, h("strong", null, t("Why: ")), h("span", { class: "title" }, words.code(root.code)),
      root.object ? h("span", { class: "object" }, ` (${named(root)})`) : null),
    h("p", { class: "text" }, root.text),
    root.hint || root.command
      ? h("p", { class: "todo" }, h("strong", null, t("What to do: ")), root.hint, root.command ? h("code", null, root.command) : null)
      : null,
    root.evidence?.length || others.length || chain.length > 1
      ? h("details", null,
        h("summary", null, others.length ? t("Details and {count} more", { count: others.length }) : t("Details")),
        chain.length > 1
          ? h("ol", { class: "chain" }, chain.map((each) => h("li", null, h("span", { class: "object" }, named(each), ": "), each.text)))
          : null,
        root.evidence?.length ? h("ul", null, root.evidence.map((each) => h("li", null, each))) : null,
        others.length
          ? h("ul", { class: "others" }, others.map((each) => h("li", null, h("span", { class: "title" }, words.code(each.code)), " — ", each.text,
            each.hint ? h("span", { class: "hint" }, ` → ${each.hint}`) : null)))
          : null)
      : null);
}

const named = ({ layer, object }) => [...new Set([words.layer(layer), object])].filter(Boolean).join(" ");

const fact = (id, title, content) => h("div", { key: id, id: `fact-${id}` }, h("dt", null, title), h("dd", null, content));

function live(status) {
  const models = Object.entries(status.models);
  if (!models.length) return h("span", { class: "big" }, t("no models"));
  return models.slice(0, 3).map(([name, model]) =>
    h("div", { key: name },
      h("span", { class: "big" }, model.current ?? t("no version")),
      h("span", { class: "note" }, name),
      model.desired && model.desired !== model.current ? h("span", { class: "note" }, t("wanted: {version}", { version: model.desired })) : null));
}

export const isChange = (each) => (each.kind === "switch" || each.kind === "rollback") && each.result !== null;

function lastChange(history) {
  const last = history.find(isChange);
  if (!last) return h("span", { class: "big quiet" }, t("none yet"));
  return [
    h("span", { class: "big" }, `${last.from ?? "–"} → ${last.to}`),
    h("span", { class: "note" }, t("{kind} by {operator}", { kind: words.kind(last.kind), operator: last.operator })),
    h("span", { class: "note" }, h("time", { datetime: last.finished, title: exact(last.finished) }, ago(last.finished)), " · ",
      h("span", { class: `word ${words.resultTone(last.result)}` }, words.result(last.result))),
  ];
}

function inProgress(state) {
  const { status } = state;
  const [operation] = status.operations;
  if (operation) {
    return [
      h("span", { class: "big" }, leftOf(operation, state)),
      h("span", { class: "note" }, `${words.kind(operation.kind)} → ${operation.to}`),
      h("span", { class: "note" }, words.step(operation.step), operation.percent === null ? null : ` · ${operation.percent} %`),
    ];
  }
  const loading = Object.values(status.models).map((model) => model.loading).find(Boolean);
  if (loading) {
    const left = loading.eta_s === null ? t("time left not known") : t("about {duration} left", { duration: duration(loading.eta_s) });
    return [h("span", { class: "big" }, left), h("span", { class: "note" }, t("loading {version}: {percent} %", loading))];
  }
  const [next] = status.scheduled;
  if (next) return [h("span", { class: "big" }, `→ ${next.version}`), h("span", { class: "note" }, t("scheduled: {time}", { time: exact(next.due) }))];
  return h("span", { class: "big quiet" }, t("nothing"));
}
