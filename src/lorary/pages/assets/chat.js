"use strict";
// The inspector's conversation: one question to one or two models of the server, side by side.

{
  const at = (id) => document.getElementById(id);
  const panel = new Panel(at("panel"));
  const turns = []; // { question, answers: [text or null of each column], palette }
  let libraries = [];
  let asking = null; // what stops the answers under way

  const say = (text) => at("status").replaceChildren(text);

  // ---- what can be asked ----------------------------------------------------------------------

  function offer(select, first) {
    const chosen = select.value;
    const groups = libraries.map((library) => make("optgroup", { label: visible(library.name) },
      ...library.models.map(({ name, router }) => make("option", { value: name }, `${visible(name)}${name.endsWith(router) ? "" : ` (${router})`}`)),
      ...library.experts.map((name) => make("option", { value: `${library.name}/${name}` }, `${visible(name)} alone`))));
    select.replaceChildren(...first, ...groups, make("option", { value: "base" }, "base, no experts"));
    const has = [...select.options].some((option) => option.value === chosen);
    if (has) select.value = chosen;
  }

  async function lookAround() {
    try {
      const about = await server.get("inspector/about");
      libraries = about.libraries;
      offer(at("first"), []);
      offer(at("second"), [make("option", { value: "" }, "nobody")]);
      if (!at("way").dataset.touched) at("way").value = about.has_chat ? "chat" : "plain";
      at("key-field").classList.remove("needed");
      say("");
      showMap();
    } catch (error) {
      refuse(error);
    }
  }

  function refuse(error) {
    say(error.message);
    if (error.status !== 401) return;
    at("key-field").classList.add("needed");
    at("key").focus();
  }

  // ---- a turn ---------------------------------------------------------------------------------

  /** What was said before in a column; where it was silent, what the first column said. */
  function history(column) {
    return turns.flatMap(({ question, answers }) => {
      const answer = answers[column] ?? answers[0];
      return answer ? [{ role: "user", content: question }, { role: "assistant", content: answer }] : [];
    });
  }

  function request(model, question, column) {
    const options = { model, max_tokens: Number(at("most").value), temperature: Number(at("temperature").value) };
    if (at("seed").value !== "") options.seed = Number(at("seed").value);
    return at("way").value === "chat"
      ? ["v1/chat/completions", { ...options, messages: [...history(column), { role: "user", content: question }] }]
      : ["v1/completions", { ...options, prompt: question }];
  }

  async function ask(question) {
    const models = [at("first").value, at("second").value].filter(Boolean);
    const asked = models.map((model, column) => request(model, question, column));
    const turn = { question, answers: models.map(() => null), palette: turns.at(-1)?.palette ?? new Map() };
    const columns = models.map((model) => make("article", { class: "column", "aria-busy": "true" }, make("h3", { class: "model" }, named(model)), make("p", { class: "streaming", dir: "auto" })));
    const again = make("button", { type: "button", class: "quiet", click: () => submit(question) }, "Ask again");
    at("turns").append(make("section", { class: "turn" }, make("div", { class: "question" }, make("p", { dir: "auto" }, visible(question)), again), make("div", { class: `columns n${models.length}` }, ...columns)));
    turns.push(turn);
    columns[0].scrollIntoView({ block: "nearest" });
    asking = new AbortController();
    busy(true);
    const told = await Promise.all(asked.map(([path, body], i) => answer(path, body, columns[i], turn, i)));
    asking = null;
    busy(false);
    const readings = told.map((trace) => trace && new Reading(trace));
    turn.palette = paletteOf(readings.filter(Boolean), turn.palette);
    readings.forEach((reading, i) => reading && show(columns[i], models[i], reading, turn.palette));
  }

  /** Stream one answer into its column; gives its trace, if it was told one. */
  async function answer(path, body, column, turn, i) {
    const text = column.querySelector(".streaming");
    const started = performance.now();
    let trace = null, said = "", ending = "";
    try {
      await server.ask(path, body, asking.signal, (piece, choice) => {
        said += piece;
        text.append(piece);
        trace = choice.trace ?? trace;
        ending = choice.finish_reason ?? ending;
      });
    } catch (error) {
      const isStopped = error.name === "AbortError";
      column.append(make("p", { class: isStopped ? "note" : "error", role: "alert" }, isStopped ? "Stopped: who spoke is told of whole answers." : error.message));
      if (!isStopped) refuse(error);
    }
    turn.answers[i] = said || null;
    column.setAttribute("aria-busy", "false");
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    if (trace) column.append(make("p", { class: "note" }, `${counted(trace.tokens.length + trace.left_out)} in ${seconds} s${ending === "length" ? ", cut at the longest that may be" : ""}`));
    return trace;
  }

  function show(column, model, reading, palette) {
    const text = column.querySelector(".streaming");
    if (!reading.experts.length || !reading.tokens.length) {
      if (!text.textContent) text.replaceWith(make("p", { class: "note" }, "The answer is empty: the model stopped at once."));
      else if (!reading.experts.length) column.append(make("p", { class: "note" }, "No expert spoke: this is the base."));
      return;
    }
    text.replaceWith(new AnswerView(model, reading, palette, (view, t) => panel.open(view, t)).node);
  }

  function busy(isBusy) {
    at("send").hidden = isBusy;
    at("stop").hidden = !isBusy;
    say(isBusy ? "Answering …" : "");
  }

  function submit(question) {
    if (asking || !question.trim() || !at("first").value) return;
    ask(question);
  }

  // ---- the map --------------------------------------------------------------------------------

  async function showMap() {
    if (!at("map-part").open) return;
    const library = libraries.find(({ name, models, experts }) => models.some((model) => model.name === at("first").value) || experts.some((expert) => `${name}/${expert}` === at("first").value));
    const place = at("map");
    if (!library) return place.replaceChildren(make("p", { class: "note" }, "The base has no experts."));
    place.replaceChildren(make("p", { class: "note" }, "Comparing the experts …"));
    try {
      const map = new ExpertMap(await server.get(`inspector/map?library=${encodeURIComponent(library.name)}`));
      place.replaceChildren(map.node);
      map.paint();
    } catch (error) {
      place.replaceChildren(make("p", { class: "error", role: "alert" }, error.message));
    }
  }

  // ---- what the user does ---------------------------------------------------------------------

  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const question = at("question").value;
    if (asking || !question.trim()) return;
    at("question").value = "";
    submit(question);
  });
  at("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    at("ask").requestSubmit();
  });
  at("stop").addEventListener("click", () => asking?.abort());
  at("reset").addEventListener("click", () => {
    asking?.abort();
    turns.length = 0;
    panel.close();
    at("turns").replaceChildren();
    at("question").focus();
  });
  at("way").addEventListener("change", () => { at("way").dataset.touched = "yes"; });
  at("key").addEventListener("change", () => {
    server.key = at("key").value;
    lookAround();
  });
  at("first").addEventListener("change", showMap);
  at("map-part").addEventListener("toggle", showMap);
  lookAround();
}
