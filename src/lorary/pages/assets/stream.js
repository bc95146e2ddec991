"use strict";
// The server's own interface, as any client has it: OpenAI's, with streaming. The key stays in this page's memory.

const server = {
  key: "",

  headers(more = {}) {
    return { ...more, ...(this.key ? { Authorization: `Bearer ${this.key}` } : {}) };
  },

  /** Get something as JSON. Throws what the server said. */
  async get(path) {
    const answer = await fetch(path, { headers: this.headers(), cache: "no-store" });
    if (!answer.ok) throw await this.refusal(answer);
    return answer.json();
  },

  async refusal(answer) {
    const body = await answer.json().catch(() => null);
    const error = new Error(body?.error?.message ?? `The server answered ${answer.status}.`);
    error.status = answer.status;
    return error;
  },

  /** Ask, and hear each piece of the answer: text, and at its end a choice that says how it was routed. */
  async ask(path, asked, signal, hear) {
    const headers = this.headers({ "Content-Type": "application/json", "X-Lorary-Trace": "full" });
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify({ ...asked, stream: true }), signal });
    if (!answer.ok) throw await this.refusal(answer);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let held = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const events = (held + part.value).split("\n\n");
      held = events.pop();
      for (const event of events) this.hearEvent(event, hear);
    }
  },

  hearEvent(event, hear) {
    const data = event.replace(/^data: /, "");
    if (data === "[DONE]") return;
    const body = JSON.parse(data);
    if (body.error) throw new Error(body.error.message);
    for (const choice of body.choices) hear(choice.delta?.content ?? choice.text ?? "", choice);
  },
};
