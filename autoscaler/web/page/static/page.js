// Keeps the page fresh. Everything works without it: it asks for the page it is on again, and takes over what changed.
"use strict";

const EVERY = 5_000; // ms between an answer and the next question
const PATIENCE = 10_000; // ms until a question counts as unanswered
const LATE = 20_000; // ms after which what is shown is old, as after a sleep of the machine
const TYPING = 250; // ms after the last key before a filter is asked for

const main = document.getElementById("main");
const fresh = document.getElementById("fresh");
const lost = document.getElementById("lost");
const live = main.hasAttribute("data-live");
let shownAt = performance.now();
let unanswered = false; // the last question was not answered
let timer = 0;
let asking = null;

/** Make `old` what `now` is, node by node: what stays the same keeps its focus, its scrolling and what is open. */
function become(old, now) {
  if (old.isEqualNode(now)) return;
  if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName || old.id !== now.id) {
    old.replaceWith(now.cloneNode(true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.nodeValue = now.nodeValue;
    if (old.parentElement.matches("td.n")) mark(old.parentElement);
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!now.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of now.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const named = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let next = old.firstChild;
  for (const wanted of now.childNodes) {
    const same = wanted.id ? named.get(wanted.id) : next;
    const fits = same && same.nodeName === wanted.nodeName && same.id === (wanted.id ?? same.id);
    if (!fits) {
      old.insertBefore(wanted.cloneNode(true), next);
      continue;
    }
    if (same === next) next = next.nextSibling;
    else old.insertBefore(same, next);
    become(same, wanted);
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

/** Show for a moment that a number is another one now. */
function mark(cell) {
  cell.classList.add("changed");
  cell.addEventListener("animationend", () => cell.classList.remove("changed"), { once: true });
}

async function refresh() {
  clearTimeout(timer);
  asking?.abort();
  const mine = (asking = new AbortController());
  const signal = AbortSignal.any([mine.signal, AbortSignal.timeout(PATIENCE)]);
  try {
    const answer = await fetch(location.href, { signal, cache: "no-store", headers: { Accept: "text/html" } });
    if (answer.redirected) {
      location.assign(answer.url); // the session has ended
      return;
    }
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (mine.signal.aborted) return;
    const focused = document.activeElement;
    become(document.body, page.body);
    document.title = page.title;
    // What was moved, or is gone, has lost the focus; whoever works by keyboard must not begin at the top again.
    if (focused !== document.activeElement) (focused.isConnected ? focused : main).focus({ preventScroll: true });
    shownAt = performance.now();
    unanswered = false;
  } catch {
    if (mine.signal.aborted) return; // another question took its place
    unanswered = true;
  }
  say();
  wait();
}

function wait() {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(refresh, EVERY);
}

/** Say whether what is shown is fresh. */
function say() {
  const is = unanswered || performance.now() - shownAt > LATE ? "lost" : "live";
  if (fresh.dataset.is === is) return;
  fresh.dataset.is = is;
  fresh.title = fresh.dataset[is];
  lost.hidden = is === "live";
  lost.textContent = lost.hidden ? "" : lost.dataset.text;
}

/** Ask for what a filter says as it is typed; without script its form does that. */
function filterAsTyped(form) {
  let typing = 0;
  const apply = () => {
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    history.replaceState(null, "", `${form.getAttribute("action")}${query.size ? `?${query}` : ""}`);
    refresh();
  };
  form.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(apply, TYPING);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(typing);
    apply();
  });
}

if (live) {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else refresh();
  });
  setInterval(() => document.hidden || say(), 1_000);
  document.querySelectorAll("form[data-filter]").forEach(filterAsTyped);
  say();
  wait();
}
