// Throughput and cache of the last minutes, and results on their way to a bucket.

import { h } from "./dom.js";
import { ago, bytes, count, duration, rate, t } from "./i18n.js";
import { badge } from "./icons.js";
import * as words from "./words.js";

const WIDTH = 300;
const HEIGHT = 64;

export function traffic(state) {
  if (!state.traffic) return null;
  const { mounts, interval_s } = state.traffic;
  const names = Object.keys(mounts);
  if (!names.length) return null;
  return h("section", { class: "card traffic", "aria-labelledby": "traffic-title" },
    h("h2", { id: "traffic-title" }, t("Throughput and cache")),
    names.map((name) => one(name, mounts[name], interval_s)));
}

function one(name, mount, interval_s) {
  const { fetched_bytes_per_s: fetched, uploaded_bytes_per_s: uploaded, cache_bytes: cache, cache_limit_bytes: limit } = mount;
  const span = duration(Math.max(fetched.length, cache.length) * interval_s);
  const most = Math.max(1, ...fetched, ...uploaded);
  const last = (values) => values.at(-1) ?? 0;
  return h("div", { key: name, class: "charts" },
    h("h3", null, t("Mount {name}, last {span}", { name, span })),
    h("figure", null,
      h("figcaption", null,
        h("span", { class: "key fetched" }, t("from the bucket {rate}", { rate: rate(last(fetched)) })),
        h("span", { class: "key uploaded" }, t("to the bucket {rate}", { rate: rate(last(uploaded)) })),
        h("span", { class: "note" }, t("highest {rate}", { rate: rate(Math.max(0, ...fetched, ...uploaded)) }))),
      chart(t("Throughput: from the bucket {fetched}, to the bucket {uploaded}, highest {most}", { fetched: rate(last(fetched)), uploaded: rate(last(uploaded)), most: rate(Math.max(0, ...fetched, ...uploaded)) }),
        [["fetched", fetched, most], ["uploaded", uploaded, most]])),
    h("figure", null,
      h("figcaption", null, h("span", { class: "key cache" }, limit ? t("cache {used} of {limit}", { used: bytes(last(cache)), limit: bytes(limit) }) : t("cache {size}", { size: bytes(last(cache)) }))),
      chart(t("Cache use: {used}", { used: bytes(last(cache)) }), [["cache", cache, Math.max(1, limit ?? 0, ...cache)]])));
}

function chart(label, series) {
  return h("svg", { class: "chart", role: "img", "aria-label": label, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" },
    h("path", { class: "grid", d: `M0 ${HEIGHT - 0.5}H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}` }),
    series.map(([kind, values, most]) => {
      const points = values.map((value, at) => [(WIDTH * at) / Math.max(1, values.length - 1), HEIGHT - 2 - ((HEIGHT - 6) * value) / most]);
      const line = points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
      return points.length > 1
        ? [h("path", { key: `${kind} area`, class: `area ${kind}`, d: `M0 ${HEIGHT}L${line}L${WIDTH} ${HEIGHT}Z` }), h("path", { key: kind, class: `curve ${kind}`, d: `M${line}` })]
        : null;
    }));
}

// -- results ----------------------------------------------------------------------------------------------------

export function outboxes(state) {
  const found = Object.entries(state.status.outbox ?? {});
  if (!found.length) return null;
  return h("section", { class: "card outboxes", "aria-labelledby": "outbox-title" },
    h("h2", { id: "outbox-title" }, t("Results on their way")),
    found.map(([name, box]) =>
      h("article", { key: name },
        h("div", { class: "row" }, h("h3", null, name), badge(words.tone(box.health), words.health(box.health))),
        h("p", null, t("{pending} wait ({size}), {uploaded} uploaded, {failed} failed", { pending: count(box.pending), size: bytes(box.pending_bytes), uploaded: count(box.uploaded), failed: count(box.failed) })),
        box.oldest_s ? h("p", { class: "note" }, t("the oldest waits for {duration}", { duration: duration(box.oldest_s) })) : null,
        box.last ? h("p", { class: "note" }, t("last: {key}", { key: box.last.key }), " · ", ago(box.last.time)) : null)));
}
