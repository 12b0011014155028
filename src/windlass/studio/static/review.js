// Labelling with the keyboard: a number chooses a level, Enter saves, s skips, u undoes, c goes to the comment. With one
// criterion a number saves as well; what was a slip is taken back by u.
"use strict";

const labelling = $("form[data-review]");

function send(what) {
  const button = $(`button[name="do"][value="${what}"]`, labelling);
  if (button && !labelling.hasAttribute("data-sent")) labelling.requestSubmit(button);
}

function pick(number) {
  const sets = $$("fieldset", labelling);
  const current = document.activeElement.closest("fieldset");
  const set = current ?? sets.find((one) => !$("input:checked", one)) ?? sets.at(-1);
  const choice = $$("input[type=radio]", set)[number - 1];
  if (!choice) return false;
  choice.checked = true;
  if (labelling.hasAttribute("data-single")) send("label");
  else {
    const next = sets.find((one) => !$("input:checked", one));
    if (next) $("input", next).focus({ preventScroll: true });
    else $("button.primary", labelling).focus({ preventScroll: true });
  }
  return true;
}

if (labelling) {
  // An item that is sent is on its way: a second press must not label the next one unseen.
  labelling.addEventListener("submit", (event) => {
    if (labelling.hasAttribute("data-sent")) event.preventDefault();
    labelling.setAttribute("data-sent", "");
  });
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
    if ($("#shortcuts").open) return;
    const writing = event.target.closest("textarea, input:not([type=radio]), select");
    if (writing) {
      if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); send("label"); }
      return;
    }
    const actions = {
      Enter: () => { if (event.target.closest("button, a, summary")) return false; send("label"); return true; },
      s: () => { send("skip"); return true; },
      u: () => { send("undo"); return true; },
      c: () => { labelling.comment.focus(); return true; },
    };
    const number = /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
    if (number ? pick(number) : actions[event.key]?.()) event.preventDefault();
  });
}

// the reviewer's name is remembered in this browser
const reviewer = $("[data-reviewer]");
if (reviewer) {
  try {
    reviewer.value ||= localStorage.getItem("windlass-reviewer") ?? "";
    reviewer.form.addEventListener("submit", () => localStorage.setItem("windlass-reviewer", reviewer.value));
  } catch { /* not remembered when storage is switched off */ }
}
