"use strict";
// A text whose tokens wear the colour of their leading expert, and can be walked with the arrow keys.

const LEAST_SHARE = 0.005; // below it a share reads as nothing, and the legend has no line for it

class AnswerView {
  /** onSelect: hears this view and the number of a token that was chosen. */
  constructor(title, reading, palette, onSelect) {
    Object.assign(this, { title, reading, palette, onSelect, selected: -1 });
    this.spans = reading.tokens.map((token, t) => this.#token(token, t));
    if (this.spans.length) this.spans[Math.min(reading.nPrompt, this.spans.length - 1)].tabIndex = 0;
    this.tokens = make("div", {
      class: "tokens", role: "group", "aria-label": `Tokens of ${visible(title)}`, dir: "auto",
      keydown: (event) => this.#walk(event), click: (event) => this.#choose(event.target.closest(".t")),
    }, ...this.spans);
    const note = reading.leftOut ? [make("p", { class: "note" }, `Not told of the last ${counted(reading.leftOut)}: the trace was full.`)] : [];
    this.node = make("div", { class: "answer" }, this.tokens, ...note, this.#legend());
  }

  #token(token, t) {
    const leader = this.reading.leader(t);
    const name = leader ? this.reading.experts[leader[0]] : "no expert leads";
    const said = leader ? `${visible(name)} ${percent(leader[1])}` : name;
    const span = make("span", {
      class: `t ${leader ? colourOf(this.palette, name) : `e${N_COLOURS}`}${t < this.reading.nPrompt ? " asked" : ""}`,
      role: "button", tabindex: "-1", "aria-pressed": "false", title: said, "aria-label": `${visible(token) || "empty"}: ${said}`,
    }, visible(token) || "∅");
    span.style.setProperty("--w", Math.min(Math.max(100 * (leader?.[1] ?? 0), 0), 100));
    return span;
  }

  #legend() {
    const entries = this.reading.shares().map(([expert, share]) => [this.reading.experts[expert], share]);
    const isShown = ([name, share]) => this.palette.has(name) && Math.abs(share) >= LEAST_SHARE;
    const coloured = entries.filter(isShown);
    const others = entries.filter((entry) => !isShown(entry));
    const shown = coloured.map(([name, share]) => [colourOf(this.palette, name), named(name), share]);
    if (others.length) shown.push([`e${N_COLOURS}`, others.length === 1 ? "1 other" : `${others.length} others`, others.reduce((sum, [, share]) => sum + share, 0)]);
    const bar = make("div", { class: "load", "aria-hidden": "true" }, ...shown.map(([colour, , share]) => {
      const part = make("span", { class: colour });
      part.style.flexGrow = Math.max(share, 0);
      return part;
    }));
    const items = shown.map(([colour, name, share]) => make("li", {}, make("span", { class: `key ${colour}` }), name, make("small", {}, ` ${percent(share)}`)));
    return make("div", {}, bar, make("ul", { class: "legend", "aria-label": "Experts and their shares" }, ...items));
  }

  #choose(span) {
    if (span) this.select(this.spans.indexOf(span));
  }

  #walk(event) {
    const t = this.spans.indexOf(event.target);
    const turn = getComputedStyle(this.tokens).direction === "rtl" ? -1 : 1;
    const to = {
      ArrowRight: t + turn, ArrowLeft: t - turn, Home: 0, End: this.spans.length - 1,
      ArrowDown: this.#beside(t, 1), ArrowUp: this.#beside(t, -1), Enter: t, " ": t,
    }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = Math.min(Math.max(to, 0), this.spans.length - 1);
    const isOpening = event.key === "Enter" || event.key === " ";
    this.focus(next);
    if (isOpening || this.selected >= 0) this.select(next); // an open token follows the arrows
  }

  /** The token that stands above or below one, nearest to it. */
  #beside(t, way) {
    const here = this.spans[t].getBoundingClientRect();
    let line = null, best = t, least = Infinity;
    for (let i = t + way; i >= 0 && i < this.spans.length; i += way) {
      const there = this.spans[i].getBoundingClientRect();
      if (Math.abs(there.bottom - here.bottom) < 4) continue;
      line ??= there.bottom;
      if (Math.abs(there.bottom - line) > 4) break;
      const off = Math.abs(there.left + there.width / 2 - here.left - here.width / 2);
      if (off < least) [best, least] = [i, off];
    }
    return best;
  }

  focus(t) {
    for (const span of this.spans) span.tabIndex = -1;
    this.spans[t].tabIndex = 0;
    this.spans[t].focus();
  }

  select(t) {
    this.deselect();
    this.selected = t;
    this.spans[t].setAttribute("aria-pressed", "true");
    for (const span of this.spans) span.tabIndex = -1;
    this.spans[t].tabIndex = 0;
    this.onSelect(this, t);
  }

  deselect() {
    if (this.selected >= 0) this.spans[this.selected].setAttribute("aria-pressed", "false");
    this.selected = -1;
  }
}
