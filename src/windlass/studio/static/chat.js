// The chat page. The conversation is kept in this tab (sessionStorage), so a reload does not lose it.
// What a model writes enters the page as text only.
"use strict";

const chat = $("#chat");
if (chat) {
  const box = $("#q"), talk = $("#talk"), send = $("#send"), stop = $("#stop"), state = $("#state");
  const settings = ["model", "system", "temperature", "max_tokens"].map((id) => $(`#${id}`));
  let said = []; // [{role, content, note}], user and assistant by turns
  let writing = null; // the AbortController of the answer that is being written

  const store = (key, value) => { try { sessionStorage.setItem(key, value); } catch { /* switched off: not kept */ } };
  const stored = (key) => { try { return sessionStorage.getItem(key); } catch { return null; } };
  const keep = () => store("windlass-chat", JSON.stringify(said));

  function show(message) {
    const item = element("article", `turn ${message.role}`);
    item.append(element("h2", "visually-hidden", message.role === "user" ? "You" : "Model"));
    const text = element("div", "text", message.content);
    item.append(text);
    if (message.note) item.append(note(message));
    talk.append(item);
    item.scrollIntoView({ block: "nearest" });
    return { item, text };
  }

  function note(message) {
    const line = element("p", "under", "");
    line.append(element("span", "", message.note));
    if (message.trace) {
      const link = element("a", "", "Trace");
      link.href = `/traces/${encodeURIComponent(message.trace)}`;
      line.append(link);
    }
    return line;
  }

  function busy(controller) {
    writing = controller;
    send.hidden = controller !== null;
    stop.hidden = controller === null;
    talk.setAttribute("aria-busy", String(controller !== null));
    for (const field of settings) field.disabled = controller !== null;
  }

  async function ask(question) {
    const body = new URLSearchParams(new FormData(chat)); // before the fields are switched off
    const mine = { role: "user", content: question };
    body.set("messages", JSON.stringify([...said, mine].map(({ role, content }) => ({ role, content }))));
    const shown = show(mine);
    const answer = { role: "assistant", content: "", note: "" };
    const place = show(answer);
    place.text.classList.add("writing");
    state.textContent = "The model is writing.";
    const controller = new AbortController();
    busy(controller);
    try {
      const response = await fetch(chat.action, {
        method: "POST", body, signal: controller.signal, headers: { Accept: "application/x-ndjson, application/json" },
      });
      if (!response.ok) throw new Error(Object.values(await response.json()).join(" "));
      for await (const part of lines(response.body)) {
        if (part.error) throw new Error(`${part.error} ${part.hint}`);
        if (part.text) {
          const atEnd = window.innerHeight + window.scrollY >= document.body.scrollHeight - 80;
          answer.content += part.text;
          place.text.append(part.text);
          if (atEnd) window.scrollTo(0, document.body.scrollHeight);
        }
        if (part.end) {
          const facts = [`${part.seconds} s`];
          if (part.tokens !== null) facts.unshift(`${part.tokens} tokens`);
          if (part.finish === "length") facts.push("cut at the token limit");
          answer.note = facts.join(" · ");
          answer.trace = part.trace;
        }
      }
      state.textContent = "The answer is complete.";
    } catch (error) {
      if (error.name === "AbortError") {
        answer.note = "stopped";
        state.textContent = "Stopped.";
      } else {
        const notice = element("p", "notice", error.message);
        notice.setAttribute("role", "alert");
        place.item.append(notice);
        state.textContent = "";
      }
    } finally {
      place.text.classList.remove("writing");
      if (answer.content || answer.trace) {
        if (answer.note) place.item.append(note(answer));
        said.push(mine, answer);
        keep();
      } else { // nothing was answered: the question goes back into the box
        shown.item.remove();
        if (!$(".notice", place.item)) place.item.remove();
        if (!box.value) box.value = question;
      }
      busy(null);
      box.focus();
    }
  }

  chat.addEventListener("submit", (event) => {
    event.preventDefault();
    const question = box.value.trim();
    if (!question || writing) return;
    for (const notice of $$(".turn .notice", talk)) notice.closest(".turn").remove();
    box.value = "";
    ask(question);
  });
  stop.addEventListener("click", () => writing?.abort());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && writing) { event.preventDefault(); writing.abort(); }
  });
  box.addEventListener("keydown", (event) => {
    const last = said.at(-2);
    if (event.key === "ArrowUp" && !box.value && last) { event.preventDefault(); box.value = last.content; }
  });
  $("#new").addEventListener("click", () => {
    writing?.abort();
    said = [];
    keep();
    talk.replaceChildren();
    state.textContent = "A new conversation.";
    box.focus();
  });
  for (const field of settings) {
    const before = stored(`windlass-chat-${field.id}`);
    const offered = field.tagName !== "SELECT" || [...field.options].some((option) => option.value === before);
    if (before !== null && offered) field.value = before;
    field.addEventListener("change", () => store(`windlass-chat-${field.id}`, field.value));
  }
  try { said = JSON.parse(stored("windlass-chat") ?? "[]"); } catch { said = []; }
  for (const message of said) show(message);
}
