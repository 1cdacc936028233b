// Elements as values, and what differs on the page changed to them: focus, scrolling and open details stay as they are.

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden"]);

// `attrs`: attributes; `on…` are listeners, `key` tells one among its siblings: what does something else needs one, or a
// click would meet what the button has just become. Text becomes text and never markup.
export function h(tag, attrs, ...children) {
  const found = children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false && each !== "");
  return { tag, attrs: attrs ?? {}, children: found };
}

// Makes the children of `parent` what `children` says.
export function patch(parent, ...children) {
  const wanted = h("", null, children).children;
  const keyed = new Map();
  const others = [];
  for (const node of parent.childNodes) {
    if (node.key_ !== undefined) keyed.set(node.key_, node);
    else others.push(node);
  }
  let next = parent.firstChild;
  for (const each of wanted) {
    const node = taken(each, keyed, others) ?? made(each, parent);
    update(node, each);
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

// The node on the page that becomes `wanted`, if any does.
function taken(wanted, keyed, others) {
  if (wanted.tag === undefined) {
    const at = others.findIndex((node) => node.nodeType === Node.TEXT_NODE);
    return at < 0 ? undefined : others.splice(at, 1)[0];
  }
  const { key } = wanted.attrs;
  if (key !== undefined) {
    const node = keyed.get(key);
    keyed.delete(key);
    return node?.localName === wanted.tag ? node : undefined;
  }
  const at = others.findIndex((node) => node.localName === wanted.tag);
  return at < 0 ? undefined : others.splice(at, 1)[0];
}

function made(wanted, parent) {
  if (wanted.tag === undefined) return document.createTextNode("");
  const isSvg = wanted.tag === "svg" || (parent.namespaceURI === SVG && parent.localName !== "foreignObject");
  const node = isSvg ? document.createElementNS(SVG, wanted.tag) : document.createElement(wanted.tag);
  node.key_ = wanted.attrs.key;
  return node;
}

function update(node, wanted) {
  if (wanted.tag === undefined) {
    const text = String(wanted);
    if (node.data !== text) node.data = text;
    return;
  }
  const before = node.attrs_ ?? {};
  const { key, ...attrs } = wanted.attrs;
  for (const name of Object.keys(before)) if (!(name in attrs)) set(node, name, null);
  for (const [name, value] of Object.entries(attrs)) if (before[name] !== value || PROPERTIES.has(name)) set(node, name, value);
  node.attrs_ = attrs;
  patch(node, wanted.children);
}

function set(node, name, value) {
  if (name.startsWith("on")) node[name] = value;
  else if (PROPERTIES.has(name) && node.localName !== "progress") {
    const given = value ?? (name === "value" ? "" : false);
    if (node[name] !== given) node[name] = given;
  } else if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : value);
}

export const element = (id) => document.getElementById(id);
