// Asks the daemon: documents, changes with the proof of the session, and the stream of what happens.

const CSRF = "mountd.csrf"; // kept for this origin alone, whereas a browser sends a cookie to each port of the host
const SILENCE_MS = 25_000; // the daemon sends something each ten seconds
const AGAIN_MS = 2_000;

export class Failed extends Error {
  constructor(status, error) {
    super(error?.text ?? "");
    this.status = status; // 0: no answer
    this.hint = error?.hint ?? "";
  }
}

export async function get(path) {
  return document_(await asked(path, {}));
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  const proof = localStorage.getItem(CSRF);
  if (proof) headers["X-Mountd-CSRF"] = proof;
  return document_(await asked(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

async function asked(path, options) {
  try {
    return await fetch(path, { cache: "no-store", credentials: "same-origin", redirect: "error", ...options });
  } catch {
    throw new Failed(0);
  }
}

async function document_(answer) {
  let found = null;
  try {
    found = await answer.json();
  } catch {
    found = null;
  }
  if (!answer.ok || found === null) throw new Failed(answer.status, found?.error);
  return found;
}

// Whether this page may prove that a change comes from it.
export const hasProof = () => localStorage.getItem(CSRF) !== null;

export async function login(token) {
  localStorage.removeItem(CSRF);
  const found = await post("/api/v1/login", { token });
  localStorage.setItem(CSRF, found.csrf);
  return found;
}

export async function logout() {
  try {
    await post("/api/v1/logout", {});
  } catch (error) {
    if (![401, 403].includes(error.status)) throw error; // there is no session any more
  }
  localStorage.removeItem(CSRF);
}

// Calls `on.status`, `on.event` and `on.connection(connected)`; connects again by itself until it is closed.
export class Stream {
  constructor(on) {
    this.on = on;
    this.last = 0; // the newest event that the page has
    this.source = null;
    this.timer = null;
  }

  open(last) {
    this.close();
    if (last !== undefined) this.last = last;
    const source = new EventSource(this.last ? `/api/v1/stream?after=${this.last}` : "/api/v1/stream");
    this.source = source;
    const heard = (work) => (message) => {
      this.listen();
      this.on.connection(true);
      work(message);
    };
    source.addEventListener("status", heard((message) => this.on.status(JSON.parse(message.data))));
    source.addEventListener(
      "event",
      heard((message) => {
        const event = JSON.parse(message.data);
        this.last = event.id;
        this.on.event(event);
      }),
    );
    source.onerror = () => {
      this.on.connection(false);
      // Refused, or silent: the browser does not try again by itself.
      if (source.readyState === EventSource.CLOSED) this.again(AGAIN_MS);
    };
    this.listen();
  }

  listen() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.on.connection(false);
      this.again(0);
    }, SILENCE_MS);
  }

  again(wait_ms) {
    this.close();
    this.timer = setTimeout(() => this.on.refused(), wait_ms);
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }
}
