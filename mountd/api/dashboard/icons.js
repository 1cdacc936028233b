// Icons, drawn: of health, and of what the page is about.

import { h } from "./dom.js";
import * as words from "./words.js";

// Decoration: the word beside it says the same.
export function light(tone, size = 20) {
  const [outline, sign] = words.shape(tone);
  return h("svg", { class: `light ${tone}`, viewBox: "0 0 24 24", width: size, height: size, "aria-hidden": "true", focusable: "false" },
    h("path", { class: "outline", d: outline }), h("path", { class: "sign", d: sign }));
}

export const badge = (tone, text) => h("span", { class: `badge ${tone}` }, light(tone, 14), h("span", null, text));
