// The language of the page, its texts from the catalogue that the commands use as well, and numbers and times in it.

export const LANGUAGES = { en: "English", "zh-CN": "简体中文" };
const CATALOGUES = { "zh-CN": "/dashboard/zh_CN.json" };
const KEPT = "mountd.language";

let language = "en";
let catalogue = {};

export const current = () => language;
// As the daemon calls it.
export const locale = () => language.replace("-", "_");

// The text in the language of the page; {words} in it are replaced by `values`.
export function t(message, values) {
  const found = catalogue[message] || message;
  return values ? found.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole)) : found;
}

// By choice, else by the languages of the browser.
export function preferred() {
  const kept = localStorage.getItem(KEPT);
  if (kept in LANGUAGES) return kept;
  for (const each of navigator.languages ?? []) {
    if (each.toLowerCase().startsWith("zh")) return "zh-CN";
    if (each.toLowerCase().startsWith("en")) return "en";
  }
  return "en";
}

// Loads its catalogue; without one the texts stay English.
export async function use(wanted, { keep = false } = {}) {
  if (keep) localStorage.setItem(KEPT, wanted);
  let found = {};
  if (wanted in CATALOGUES) {
    try {
      const answer = await fetch(CATALOGUES[wanted]);
      if (answer.ok) found = await answer.json();
    } catch {
      found = {};
    }
  }
  catalogue = found;
  language = wanted;
  document.documentElement.lang = wanted;
}

const number = (value, digits = 0) =>
  new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);

export const count = (value) => number(value);

// 12 MiB
export function bytes(value) {
  let rest = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (rest < 1024) return `${number(rest, rest < 10 && unit !== "B" ? 1 : 0)} ${unit}`;
    rest /= 1024;
  }
  return `${number(rest, rest < 10 ? 2 : 1)} TiB`;
}

// As disks and networks are sold: 12 MB/s.
export function rate(value) {
  let rest = value;
  for (const unit of ["B/s", "kB/s", "MB/s"]) {
    if (rest < 1000) return `${number(rest, rest < 10 && unit !== "B/s" ? 1 : 0)} ${unit}`;
    rest /= 1000;
  }
  return `${number(rest, 2)} GB/s`;
}

// Of seconds: 5 s, 2 min 5 s, 3 h 20 min, 4 d 3 h.
export function duration(seconds) {
  const all = Math.max(0, Math.round(seconds));
  const [days, hours, minutes, rest] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60, all % 60];
  if (days) return t("{days} d {hours} h", { days, hours });
  if (hours) return t("{hours} h {minutes} min", { hours, minutes });
  if (minutes) return rest && minutes < 10 ? t("{minutes} min {seconds} s", { minutes, seconds: rest }) : t("{minutes} min", { minutes });
  return t("{seconds} s", { seconds: rest });
}

export function ago(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 5) return t("just now");
  return t("{duration} ago", { duration: duration(seconds < 600 ? seconds : Math.round(seconds / 60) * 60) });
}

// With its date unless it is of today.
export function clock(time) {
  const when = new Date(time);
  if (Number.isNaN(when.getTime())) return "";
  const isToday = when.toDateString() === new Date().toDateString();
  return new Intl.DateTimeFormat(language, isToday ? { timeStyle: "medium", hourCycle: "h23" } : { dateStyle: "short", timeStyle: "short", hourCycle: "h23" }).format(when);
}

export const exact = (time) => {
  const when = new Date(time);
  return Number.isNaN(when.getTime()) ? "" : new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "long", hourCycle: "h23" }).format(when);
};
