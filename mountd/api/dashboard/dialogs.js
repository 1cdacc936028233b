// Dialogs: log in, confirm a change, and how to allow changes at all. The browser keeps the focus inside.

import * as api from "./api.js";
import { element, h, patch } from "./dom.js";
import { current, duration, t } from "./i18n.js";
import * as words from "./words.js";

let draw = () => {};

// Shows what `content` says; it is drawn again by `redraw` as long as it is open.
function open(content) {
  const dialog = element("dialog");
  draw = () => patch(dialog, content());
  draw();
  dialog.onclose = () => {
    if (dialog.open) return; // the event of a dialog before comes late: this one is open by now
    draw = () => {};
    patch(dialog);
  };
  if (!dialog.open) dialog.showModal();
  dialog.querySelector("[data-first]")?.focus();
}

export const redraw = () => draw();
const close = () => element("dialog").close();

const title = (text) => h("h2", { id: "dialog-title" }, text);
const failure = (error) =>
  h("p", { class: "failure", role: "alert" }, error ? [failed(error), error.hint ? h("span", { class: "hint" }, ` ${error.hint}`) : null] : null);

export function failed(error) {
  if (error.status === 0) return t("mountd does not answer.");
  if (error.status === 429) return t("Too many wrong tokens came from this address: wait a little.");
  return error.message || t("That did not work ({status}).", { status: error.status });
}

// -- to log in --------------------------------------------------------------------------------------------------

// The form alone, for a page that shows nothing before; `done` is called once somebody is logged in.
export function loginForm(state, done, { isDialog = false } = {}) {
  const submit = async (event) => {
    event.preventDefault();
    const input = event.target.elements.token;
    state.login = { busy: true, error: null };
    done(false);
    try {
      await api.login(input.value.trim());
      input.value = "";
      state.login = { busy: false, error: null };
      done(true);
    } catch (error) {
      state.login = { busy: false, error };
      done(false);
      input.focus();
      input.select();
    }
  };
  const { busy, error } = state.login;
  return h("form", { class: "login", onsubmit: submit, autocomplete: "off" },
    h("label", { for: "token" }, t("Token")),
    h("input", { id: "token", name: "token", type: "password", required: true, autocomplete: "current-password", spellcheck: "false", "data-first": true,
      "aria-invalid": error ? "true" : null, "aria-describedby": "token-note" }),
    h("p", { id: "token-note", class: "note" }, t("From the file that http.tokens names: the third word of a line.")),
    error ? failure(error.status === 401 ? { ...error, message: t("This token is not valid."), hint: "" } : error) : h("p", { class: "failure", role: "alert" }),
    h("div", { class: "buttons" },
      isDialog ? h("button", { key: "cancel", type: "button", class: "quiet", onclick: close }, t("Cancel")) : null,
      h("button", { key: "submit", type: "submit", class: "main", disabled: busy }, t("Log in"))));
}

export function login(state, done) {
  state.login = { busy: false, error: null };
  open(() => [title(t("Log in")), loginForm(state, (isIn) => {
    if (isIn) close();
    else draw();
    if (isIn) done();
  }, { isDialog: true })]);
}

// -- how to allow changes ---------------------------------------------------------------------------------------

export function howTo() {
  const lines = "http:\n  tokens: {file: /etc/mountd/tokens}";
  open(() => [
    title(t("This page is read-only")),
    h("p", null, t("No tokens are configured, so nobody can change anything here. To allow it:")),
    h("ol", null,
      h("li", null, t("Make a token:"), h("pre", null, "openssl rand -hex 32")),
      h("li", null, t("Write it into a file that only mountd can read, one line for each person:"), h("pre", null, "operator alice TOKEN")),
      h("li", null, t("Name the file in the configuration; mountd notices the change by itself:"), h("pre", null, lines))),
    h("p", { class: "note" }, t("On this machine, the mountd command works without a token.")),
    h("div", { class: "buttons" }, h("button", { type: "button", class: "main", "data-first": true, onclick: close }, t("Close"))),
  ]);
}

// -- to confirm a change ----------------------------------------------------------------------------------------

// `change`: {heading, from, to, path, body, button, isDanger, plan}. With `plan` the daemon is asked what it would do.
export function confirm(change, done) {
  const now = { busy: false, error: null, plan: null, reason: "" };
  if (change.plan) {
    api.post(change.path, { ...change.body, dry_run: true }).then(
      (found) => {
        now.plan = found.plan;
        draw();
      },
      (error) => {
        now.error = error;
        draw();
      },
    );
  }
  const submit = async (event) => {
    event.preventDefault();
    now.busy = true;
    now.error = null;
    draw();
    try {
      const body = change.asksReason ? { ...change.body, reason: now.reason.trim() } : change.body;
      await api.post(change.path, body);
      close();
      done();
    } catch (error) {
      now.busy = false;
      now.error = error;
      draw();
    }
  };
  open(() => [
    title(change.heading),
    h("form", { onsubmit: submit },
      h("p", { class: "way" },
        h("span", { class: "version" }, change.from ?? "–"), h("span", { "aria-hidden": "true" }, " → "), h("span", { class: "hidden" }, t(" to ")), h("span", { class: "version to" }, change.to)),
      change.note ? h("p", null, change.note) : null,
      change.plan ? plan(now) : null,
      change.asksReason
        ? [h("label", { for: "reason-text" }, t("Reason, for the history")),
          h("input", { id: "reason-text", type: "text", maxlength: 500, value: now.reason, "data-first": true, oninput: (event) => { now.reason = event.target.value; } })]
        : null,
      failure(now.error),
      h("div", { class: "buttons" },
        h("button", { key: "cancel", type: "button", class: "quiet", onclick: close, "data-first": change.asksReason ? null : true }, change.back ?? t("Cancel")),
        h("button", { key: "submit", type: "submit", class: change.isDanger ? "danger" : "main", disabled: now.busy }, change.button)))]);
}

function plan({ plan: found, error }) {
  if (!found) return error ? null : h("p", { class: "note", "aria-busy": "true" }, t("Looking at what would be done …"));
  const apps = found.apps.length ? t("{apps} restarts; whatever fails is undone. At most {duration}.", { apps: found.apps.join(t(", ")), duration: duration(found.limit_s) }) : t("No app restarts; whatever fails is undone. At most {duration}.", { duration: duration(found.limit_s) });
  return [
    h("p", null, apps),
    h("details", null, h("summary", null, t("{count} steps", { count: found.steps.length })),
      h("ol", { class: "plan" }, found.steps.map((each) => h("li", null, h("strong", null, words.step(each.step)), ` ${planned(each, found)}`)))),
  ];
}

// In English as the daemon words it, else from the same values and in the same words as the command says it.
function planned({ step, text, limit_s }, plan) {
  if (current() === "en") return text;
  const values = {
    apps: plan.apps.join(t(", ")), crashes: plan.watch.crashes, former: plan.from ?? t("nothing"), gates: plan.gates.join(t(", ")),
    limit: duration(limit_s), link: plan.link, target: plan.target, to: plan.to, watch: duration(plan.watch.for_s),
  };
  const suspends = ", and automatic sync is suspended until `mountd resume`";
  const texts = {
    preflight: t("load the names and sizes of its files, at most {limit}; see that {to} is complete", values)
      + (plan.force ? "" : t(", and not in quarantine")) + t(", and that the link can be placed"),
    warm: t("load the data that the switch needs, at most {limit}", values),
    verify: t("see that the mount shows them, at most {limit}", values),
    stop: t("stop {apps}, at most {limit}", values),
    flip: t("point {link} at {target}", values),
    start: t("start {apps}", values),
    ready: t("wait until {apps} are ready, at most {limit}", values),
    gates: t("ask the gates: {gates}", values),
    watch: t("for {watch}: {crashes} crashes or a gate that fails bring {former} back", values),
    commit: t("{to} is live for good, and {former} its way back", values) + (text.endsWith(suspends) ? t(suspends) : ""),
  };
  return texts[step] ?? text;
}
