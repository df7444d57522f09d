// A conversation: the question is sent, the stream of the answer is shown, and its last event has the turn's markup,
// which the server made harmless. Texts come from the page; nothing is kept in the browser.
"use strict";

(() => {
  // Says what to show; whatever else goes wrong has words that aren't a patient's.
  class Failure extends Error {}

  const form = document.getElementById("ask");
  const turns = document.getElementById("turns");
  const status = document.getElementById("status");
  const question = document.getElementById("text");
  const button = form.querySelector("button");
  const token = form.elements.token.value;
  const base = form.getAttribute("action").replace(/\/ask$/, "");

  const post = (path, value) =>
    fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Form-Token": token },
      body: JSON.stringify(value),
      credentials: "same-origin",
    });

  const why = (code, httpStatus) => {
    if (code === "not_ours") return form.dataset.stale;
    if (code === "no_answer") return form.dataset.nobody;
    if (httpStatus === 429 || code === "overloaded") return form.dataset.busy;
    if (httpStatus === 400 || code === "refused_by_miners") return form.dataset.refused;
    return form.dataset.failed;
  };

  const fragment = (html) => {
    const made = document.createElement("template");
    made.innerHTML = html;
    return made.content;
  };

  const show = (part, text) => {
    part.hidden = false;
    part.querySelector(".words").textContent += text;
  };

  const warn = (turn, text) => {
    const notice = turn.querySelector(".notice");
    show(notice, text.trim());
    notice.setAttribute("role", "alert");
  };

  // Yields the events of a stream, each the text behind "data: ".
  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      waiting += value;
      const parts = waiting.split("\n\n");
      waiting = parts.pop();
      for (const part of parts) if (part.startsWith("data: ")) yield part.slice(6);
    }
  }

  // Returns the markup of the whole turn, and whether a twin answered; throws a Failure.
  const read = async (response, turn) => {
    const answers = turn.querySelectorAll(".answer");
    let html = null;
    let answered = true;
    let again = 0; // so many characters of the second answer are the notice, which stands above both already
    for await (const event of events(response)) {
      if (event === "[DONE]") return { html, answered };
      const chunk = JSON.parse(event);
      if (chunk.error) throw new Failure(why(chunk.error.code, 0));
      const [choice] = chunk.choices || [];
      const text = choice && choice.delta && choice.delta.content;
      // The first event with a role and words is the emergency notice: it stands alone, before any twin's words.
      if (text && choice.delta.role) {
        again = text.length;
        warn(turn, text);
      } else if (text) {
        const words = choice.index > 0 ? text.slice(again) : text;
        if (choice.index > 0) again = Math.max(0, again - text.length);
        if (words) show(answers[choice.index], words);
      }
      if (chunk.bettertherapy) {
        html = chunk.bettertherapy.html;
        answered = chunk.bettertherapy.answered !== false; // false: nothing but an emergency notice was said
      }
    }
    throw new Failure(form.dataset.failed);
  };

  const asked = async (text, compare) => {
    const turn = document.getElementById("pending").content.cloneNode(true).querySelector("article");
    turn.querySelector(".asked .words").textContent = text;
    turns.append(turn);
    turn.scrollIntoView({ block: "nearest" });
    try {
      const response = await post(`${base}/ask`, { text, compare });
      if (!response.ok) {
        const { error, notice } = await response.json();
        if (notice) warn(turn, notice); // an emergency is one whatever becomes of the question
        throw new Failure(why(error.code, response.status));
      }
      const { html, answered } = await read(response, turn);
      turn.replaceWith(fragment(html));
      turns.lastElementChild.scrollIntoView({ block: "nearest" });
      status.textContent = answered ? form.dataset.answered : form.dataset.nobody;
      return true;
    } catch (error) {
      // What was shown so far stays, above all an emergency notice.
      const failure = turn.querySelector(".failure");
      failure.textContent = error instanceof Failure ? error.message : form.dataset.failed;
      failure.hidden = false;
      turn.removeAttribute("aria-busy");
      status.textContent = failure.textContent;
      return false;
    }
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = question.value.trim();
    if (!text) {
      status.textContent = form.dataset.empty;
      question.focus();
      return;
    }
    if (button.disabled) return;
    button.disabled = true;
    question.value = "";
    status.textContent = form.dataset.asking;
    const done = await asked(text, form.elements.compare.checked);
    if (!done && !question.value) question.value = text;
    button.disabled = false;
    question.focus({ preventScroll: true });
  });

  turns.addEventListener("submit", async (event) => {
    const sent = event.target;
    if (sent.classList.contains("receipt")) return; // the browser sends it
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(sent));
    if (sent.classList.contains("rate")) {
      const said = sent.querySelector("[role=status]");
      try {
        const response = await post(`${base}/rate`, { ...fields, stars: Number(fields.stars) });
        const { notice } = await response.json();
        said.textContent = (response.ok ? sent.dataset.thanks : sent.dataset.failed) + (notice ? `\n\n${notice}` : "");
        said.className = notice ? "notice words" : "";
      } catch {
        said.textContent = sent.dataset.failed;
      }
    } else if (sent.classList.contains("prefer")) {
      const turn = sent.closest(".turn");
      const outcome = turn.querySelector(".outcome");
      try {
        const response = await post(`${base}/prefer`, fields);
        if (!response.ok) throw new Error();
        outcome.replaceChildren(fragment((await response.json()).html));
        for (const each of turn.querySelectorAll(".prefer")) each.remove();
        outcome.setAttribute("tabindex", "-1");
        outcome.focus({ preventScroll: true });
      } catch {
        outcome.textContent = outcome.dataset.failed;
      }
    }
  });

  const consent = document.getElementById("consent");
  if (consent) {
    const given = consent.elements.given;
    const said = document.getElementById("consent-status");
    given.addEventListener("change", async () => {
      const wanted = given.checked;
      try {
        const response = await post(`${base}/consent`, { given: wanted });
        if (!response.ok) throw new Error();
        said.textContent = wanted ? consent.dataset.given : consent.dataset.taken;
      } catch {
        given.checked = !wanted;
        said.textContent = consent.dataset.failed;
      }
    });
  }
})();
