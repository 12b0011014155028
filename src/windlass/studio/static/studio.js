// The studio's behaviour on top of pages that work without it. Text from models and users only ever enters the
// page as text; markup comes from the server's templates alone.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// theme ---------------------------------------------------------------------------------------------------------
const THEMES = ["system", "light", "dark"];

function theme(next) {
  const root = document.documentElement;
  if (next) {
    if (next === "system") delete root.dataset.theme; else root.dataset.theme = next;
    try {
      if (next === "system") localStorage.removeItem("windlass-theme"); else localStorage.setItem("windlass-theme", next);
    } catch { /* not remembered when storage is switched off */ }
    document.dispatchEvent(new Event("themechange"));
  }
  const now = root.dataset.theme || "system";
  const button = $("#theme");
  button.title = `Theme: ${now} (d)`;
  $("span", button).textContent = `Theme: ${now}`;
  return now;
}
const nextTheme = () => theme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
$("#theme").addEventListener("click", nextTheme);
theme();

// keyboard ------------------------------------------------------------------------------------------------------
const dialog = $("#shortcuts");
$("#help").addEventListener("click", () => dialog.showModal());
let waitingForGo = 0;

function move(selector, step) {
  const items = $$(selector);
  if (!items.length) return false;
  const at = items.indexOf(document.activeElement);
  const next = items[at < 0 ? (step > 0 ? 0 : items.length - 1) : Math.min(items.length - 1, Math.max(0, at + step))];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (dialog.open) {
    if (event.key === "?") dialog.close();
    return;
  }
  if (Date.now() - waitingForGo < 1500) {
    waitingForGo = 0;
    const link = $(`nav a[data-go="${CSS.escape(event.key)}"]`);
    if (link) { event.preventDefault(); link.click(); }
    return;
  }
  const actions = {
    "/": () => { const box = $("#q"); if (box) { box.focus(); box.select(); } else location.assign("/ask"); return true; },
    "?": () => { dialog.showModal(); return true; },
    g: () => { waitingForGo = Date.now(); return true; },
    d: () => { nextTheme(); return true; },
    j: () => move("a.row", 1),
    k: () => move("a.row", -1),
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
  };
  if (actions[event.key]?.()) event.preventDefault();
});

// waterfall: the arrow keys choose a span, its details are fetched in place ----------------------------------------
const trace = $(".trace");

function step(by) {
  if (!trace || document.activeElement.closest("pre, .message")) return false;
  if (!document.activeElement.dataset.span) $("[data-span][aria-current]", trace)?.focus();
  if (!move("[data-span]", by)) return false;
  choose(document.activeElement);
  return true;
}

let chosen = 0;
async function choose(link) {
  const mine = ++chosen;
  for (const other of $$("[data-span][aria-current]", trace)) other.removeAttribute("aria-current");
  link.setAttribute("aria-current", "true");
  history.replaceState(null, "", link.getAttribute("href"));
  const response = await fetch(`/traces/${trace.dataset.trace}/spans/${link.dataset.span}`);
  if (mine !== chosen) return; // a later choice was made in the meantime
  if (response.ok) $("#details").innerHTML = await response.text();
  else location.assign(link.href);
}
trace?.addEventListener("click", (event) => {
  const link = event.target.closest("[data-span]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  choose(link);
});

$("nav a[aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
$(".graph .here")?.scrollIntoView({ inline: "center", block: "nearest" });

// feedback ------------------------------------------------------------------------------------------------------
document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-feedback]");
  if (!form) return;
  event.preventDefault();
  const value = event.submitter?.value ?? "1";
  const data = new URLSearchParams(new FormData(form));
  data.set("value", value);
  const place = form.closest(".answer, main");
  let said = $(".said", form);
  if (!said) {
    said = document.createElement("span");
    said.className = "said small";
    said.setAttribute("role", "status");
    form.append(said);
  }
  try {
    const response = await fetch(form.action, { method: "POST", body: data, headers: { Accept: "application/json" } });
    const result = await response.json();
    if (!response.ok) throw new Error(`${result.error} ${result.hint}`);
    for (const button of $$("form.thumbs button", place)) button.setAttribute("aria-pressed", String(button.value === value));
    said.textContent = "Stored, thank you.";
    if (trace && form.classList.contains("more") === false && form.closest(".more")) location.reload();
  } catch (error) {
    said.textContent = error.message;
    said.classList.add("bad");
  }
});

// what costs money is asked for once a press: a second press waits for the page that comes ----------------------------
function running(form, now) {
  form.toggleAttribute("data-running", now);
  const button = $("button.primary", form);
  button.disabled = now;
  button.textContent = now ? "Running…" : "Run";
}
document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-once]");
  if (form?.hasAttribute("data-running")) event.preventDefault();
  else if (form) running(form, true);
});
addEventListener("pageshow", (event) => { // come back to by the back button, as it was left
  if (event.persisted) for (const form of $$("form[data-running]")) running(form, false);
});

// ask -----------------------------------------------------------------------------------------------------------
for (const box of $$(".box textarea")) {
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      box.form.requestSubmit();
    }
  });
}
const form = $("#ask");
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  const question = form.question.value.trim();
  if (question) ask(question);
});

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

async function ask(question) {
  const button = $("button.primary", form);
  const answer = element("article", "answer");
  const text = element("div", "text writing");
  answer.append(element("h2", "question", question), text);
  $("#answers").prepend(answer);
  const body = new URLSearchParams(new FormData(form));
  form.question.value = ""; // at once: what is typed while the answer comes is the next question
  button.disabled = true;
  try {
    const response = await fetch(form.action, {
      method: "POST", body, headers: { Accept: "application/x-ndjson, application/json" },
    });
    if (!response.ok) throw new Error(Object.values(await response.json()).join(" "));
    for await (const item of lines(response.body)) {
      if (item.text) text.append(item.text);
      if (item.error) throw new Error(`${item.error} ${item.hint}`);
      if (item.html) {
        answer.insertAdjacentHTML("afterend", item.html);
        answer.remove();
      }
    }
  } catch (error) {
    text.classList.remove("writing");
    const notice = element("p", "notice", error.message);
    notice.setAttribute("role", "alert");
    answer.append(notice);
    if (!form.question.value) form.question.value = question;
  } finally {
    button.disabled = false;
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}
