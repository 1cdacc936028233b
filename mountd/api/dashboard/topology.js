// The picture of the way of the data: bucket → rclone → mount → link → app, each with its health.

import { h } from "./dom.js";
import { bytes, t } from "./i18n.js";
import * as words from "./words.js";

const LAYERS = ["bucket", "rclone", "mount", "link", "app"];
const PROCESS = { running: "Healthy", backoff: "Degraded", failed: "Degraded", stopped: "Missing" };
const NODE = { width: 200, height: 86, gap: 14 };

// Layers from the bucket to the app, each a list of nodes, and what leads where.
export function graph(status) {
  const nodes = Object.fromEntries(LAYERS.map((layer) => [layer, []]));
  const edges = [];
  for (const [name, remote] of Object.entries(status.remotes)) nodes.bucket.push({ name, health: remote.health, detail: "" });
  for (const [name, mount] of Object.entries(status.mounts)) {
    const restarts = mount.restarts ? t("restarts: {count}", { count: mount.restarts }) : "";
    const detail = joined(words.state(mount.state), restarts);
    nodes.rclone.push({ name, health: PROCESS[mount.state] ?? "Progressing", detail });
    const used = mount.cache.bytes_used ? t("cache {size}", { size: bytes(mount.cache.bytes_used) }) : "";
    const uploads = mount.cache.uploads_queued ? t("uploads: {count}", { count: mount.cache.uploads_queued }) : "";
    const isThere = mount.state === "running" && mount.stage === "ready";
    nodes.mount.push({ name, health: mount.health, detail: isThere ? uploads || used || words.stage(mount.stage) : words.stage(mount.stage) });
    edges.push(["bucket", mount.remote.split(":")[0], "rclone", name], ["rclone", name, "mount", name]);
  }
  for (const [name, model] of Object.entries(status.models)) {
    const wanted = model.desired && model.desired !== model.current ? `→ ${model.desired}` : "";
    const waits = model.stage === "linked" ? "" : words.stage(model.stage);
    const loading = model.loading ? `${model.loading.percent} %` : "";
    nodes.link.push({ name, health: model.health, detail: joined(model.current ?? t("no version"), wanted, waits, loading) });
    edges.push(["mount", model.mount, "link", name]);
  }
  for (const [name, app] of Object.entries(status.apps)) {
    const loaded = app.load?.percent === null || app.load?.percent === undefined ? "" : `${app.load.percent} %`;
    const restarts = app.restarts ? t("restarts: {count}", { count: app.restarts }) : "";
    nodes.app.push({ name, health: app.health, detail: joined(words.state(app.state), loaded, restarts) });
    for (const need of app.needs) edges.push([need in status.models ? "link" : "mount", need, "app", name]);
  }
  return { nodes, edges };
}

const joined = (...facts) => facts.filter(Boolean).join(" · ");

// `width`: of the room for it, in pixels; a narrow one has the layers below one another.
export function topology(status, width) {
  const { nodes, edges } = graph(status);
  const layers = LAYERS.filter((layer) => nodes[layer].length);
  const most = Math.max(1, ...layers.map((layer) => nodes[layer].length));
  const isWide = width >= 900;
  const places = new Map();
  let size;
  if (isWide) {
    const space = layers.length > 1 ? Math.min(44, (width - layers.length * NODE.width) / (layers.length - 1)) : 0;
    const node = Math.min(260, (width - space * (layers.length - 1)) / layers.length);
    const height = most * NODE.height + (most - 1) * NODE.gap;
    layers.forEach((layer, column) => {
      const own = nodes[layer].length * NODE.height + (nodes[layer].length - 1) * NODE.gap;
      nodes[layer].forEach((each, row) => {
        const y = (height - own) / 2 + row * (NODE.height + NODE.gap);
        places.set(`${layer} ${each.name}`, { layer, each, x: column * (node + space), y, width: node });
      });
    });
    size = { width: layers.length * node + space * (layers.length - 1), height };
  } else {
    let y = 0;
    for (const layer of layers) {
      for (const each of nodes[layer]) {
        places.set(`${layer} ${each.name}`, { layer, each, x: 0, y, width });
        y += NODE.height + NODE.gap;
      }
      y += NODE.gap;
    }
    size = { width, height: Math.max(NODE.height, y - 2 * NODE.gap) };
  }
  const lines = edges
    .map(([fromLayer, from, toLayer, to]) => [places.get(`${fromLayer} ${from}`), places.get(`${toLayer} ${to}`)])
    .filter(([from, to]) => from && to)
    .map(([from, to]) => line(from, to, isWide));
  const summary = [...places.values()].map(({ layer, each }) => described(layer, each)).join(t("; "));
  return h("svg", { class: "topology", role: "img", "aria-label": summary, viewBox: `0 0 ${size.width} ${size.height}`, width: size.width, height: size.height },
    lines, [...places.values()].map(box));
}

const described = (layer, each) => [`${words.layer(layer)} ${each.name}`, words.health(each.health), each.detail].filter(Boolean).join(t(", "));

function line(from, to, isWide) {
  const middle = NODE.height / 2;
  const isWhole = from.each.health === "Healthy" || from.each.health === "Suspended";
  const path = isWide
    ? curve(from.x + from.width, from.y + middle, to.x, to.y + middle)
    : `M28 ${from.y + NODE.height}V${to.y}`;
  return h("path", { class: `edge ${isWhole ? "" : "broken"}`, d: path });
}

function curve(x1, y1, x2, y2) {
  const bend = (x2 - x1) / 2;
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

function box({ layer, each, x, y, width }) {
  const tone = words.tone(each.health);
  const [outline, sign] = words.shape(tone);
  const room = width - 62;
  return h("g", { key: `${layer} ${each.name}`, class: `node ${tone}`, transform: `translate(${x} ${y})` },
    h("title", null, described(layer, each)),
    h("rect", { class: "box", x: 0.5, y: 0.5, width: width - 1, height: NODE.height - 1, rx: 10 }),
    h("g", { class: `light ${tone}`, transform: "translate(14 28) scale(1.25)" },
      h("path", { class: "outline", d: outline }), h("path", { class: "sign", d: sign })),
    h("text", { class: "layer", x: 54, y: 22 }, words.layer(layer)),
    h("text", { class: "name", x: 54, y: 42 }, cut(each.name, room / 10)),
    h("text", { class: "health", x: 54, y: 59 }, words.health(each.health)),
    h("text", { class: "detail", x: 54, y: 75 }, cut(each.detail, room / 7.3)));
}

// `most`: in letters; a Chinese one is as wide as two. The whole text is in the title.
function cut(text, most) {
  let wide = 0;
  for (let at = 0; at < text.length; at++) {
    wide += text.charCodeAt(at) > 0x2e80 ? 1.9 : 1;
    if (wide > most) return `${text.slice(0, Math.max(1, at - 1))}…`;
  }
  return text;
}
