"use strict";
// One token, opened: its experts, how their evidence grew along the text, and its layers.

const MOST_COLUMNS = 8;
const SVG = "http://www.w3.org/2000/svg";
const MEASURES = {
  evidence: "evidence, all sites",
  mean: "weight, mean of all sites",
  last: "weight, last site",
  odds: "log odds, last site",
};
const LEAST = 1e-6; // what a weight is told to; its odds have a bottom there

function draw(tag, properties = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

class Panel {
  constructor(node) {
    this.node = node;
    this.view = null;
    this.measure = "evidence";
    this.empty();
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.view) this.close();
    });
  }

  empty() {
    this.node.classList.remove("open");
    this.node.replaceChildren(make("p", { class: "note" }, "Choose a token to see its layers: with a click, or with Tab, the arrow keys and Enter."));
  }

  close() {
    const { view } = this;
    if (!view) return;
    const t = view.selected;
    view.deselect();
    this.view = null;
    this.empty();
    if (t >= 0 && view.tokens.isConnected) view.focus(t);
  }

  /** Open a token of an answer. */
  open(view, t) {
    if (this.view && this.view !== view) this.view.deselect();
    this.view = view;
    const { reading } = view;
    const place = t < reading.nPrompt ? "prompt" : "answer";
    const head = make("div", { class: "panel-head" },
      make("h2", {}, "Token ", make("bdi", { class: "token" }, visible(reading.tokens[t]) || "∅")),
      make("button", { type: "button", class: "quiet", "aria-label": "Close", click: () => this.close() }, "✕"));
    const where = make("p", { class: "note" }, `${t + 1} of ${reading.tokens.length}, ${place} of `, named(view.title));
    const { scrollTop } = this.node;
    this.node.replaceChildren(head, where, this.#experts(view, t), this.#growth(view, t), this.#layers(view, t));
    this.node.classList.add("open");
    this.node.scrollTop = scrollTop;
    view.spans[t].scrollIntoView({ block: "nearest" }); // a phone's panel lies over the text
  }

  #experts({ reading, palette }, t) {
    const ranked = reading.ranked(t).filter(([, weight]) => Math.abs(weight) >= 0.005).slice(0, MOST_COLUMNS);
    if (!ranked.length) return make("p", {}, "No expert had a part in it.");
    const rows = ranked.map(([expert, weight]) => {
      const bar = make("span", { class: `bar ${colourOf(palette, reading.experts[expert])}` });
      bar.style.width = `${Math.min(Math.max(100 * weight, 0), 100)}%`;
      return make("li", {}, named(reading.experts[expert]), make("span", { class: "track", "aria-hidden": "true" }, bar), make("output", {}, percent(weight)));
    });
    return make("ol", { class: "ranked", "aria-label": "Experts, mean over all sites" }, ...rows);
  }

  // ---- over the text --------------------------------------------------------------------------

  #growth(view, t) {
    const offered = Object.entries(MEASURES).filter(([value]) => value !== "evidence" || view.reading.evidence);
    const chosen = offered.some(([value]) => value === this.measure) ? this.measure : "mean";
    const options = offered.map(([value, label]) => make("option", { value, selected: value === chosen }, label));
    const place = make("div", {}, this.#chart(view, t, chosen));
    const choice = make("select", { id: "shown", change: (event) => {
      this.measure = event.target.value;
      place.replaceChildren(this.#chart(view, t, this.measure));
    } }, ...options);
    return make("section", {}, make("h3", {}, `${view.reading.evidence ? "Evidence" : "Weights"} along the text`), make("div", { class: "field" }, make("label", { for: "shown" }, "Shown"), choice), place);
  }

  /** What is shown of an expert at a token; null for the odds of nothing, and for evidence that isn't told. */
  #value(reading, t, expert, measure) {
    if (measure === "evidence") return reading.evidence[t]?.get(expert) ?? null;
    if (measure === "mean") return reading.means[t].get(expert) ?? 0;
    const weight = reading.at(t, reading.sites.length - 1, expert);
    if (measure === "last") return weight;
    if (weight <= 0) return null;
    const share = Math.min(Math.max(weight, LEAST), 1 - LEAST);
    return Math.log(share / (1 - share));
  }

  /** From where to where a chart goes, and the lines across it. */
  #scale(measure, values) {
    if (measure === "odds") return [Math.log(LEAST), -Math.log(LEAST), [-10, 0, 10]];
    if (measure !== "evidence") return [0, 1, [0, 0.5, 1]];
    const known = values.flat().filter((value) => value !== null);
    const [low, most] = [Math.min(0, ...known), Math.max(0, ...known)];
    const step = 10 ** Math.floor(Math.log10(most - low || 1));
    const marks = [Math.ceil(low / step) * step, 0, Math.floor(most / step) * step];
    return [low, most > low ? most : low + 1, [...new Set(marks)]];
  }

  #chart({ reading, palette }, t, measure) {
    const [wide, high, left, bottom, top] = [360, 150, 34, 20, 8];
    const n = reading.tokens.length;
    const drawn = reading.experts.map((name, expert) => [name, expert]).filter(([name]) => palette.has(name));
    const courses = drawn.map(([, expert]) => reading.tokens.map((_, i) => this.#value(reading, i, expert, measure)));
    const [low, most, marks] = this.#scale(measure, courses);
    const x = (i) => left + (n > 1 ? i / (n - 1) : 0.5) * (wide - left - 8);
    const y = (value) => top + (1 - (Math.min(Math.max(value, low), most) - low) / (most - low)) * (high - top - bottom);
    const grid = marks.flatMap((mark) => [
      draw("line", { class: "grid", x1: left, x2: wide - 8, y1: y(mark), y2: y(mark) }),
      draw("text", { x: left - 6, y: y(mark) + 4, "text-anchor": "end" }, String(Number(mark.toPrecision(6)))),
    ]);
    const lines = drawn.flatMap(([name], i) => {
      const values = courses[i];
      const steps = values.map((value, i) => (value === null ? "" : `${i && values[i - 1] !== null ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`));
      const dots = values[t] === null ? [] : [draw("circle", { class: `dot ${colourOf(palette, name)}`, r: 3.2, cx: x(t), cy: y(values[t]) })];
      return [draw("path", { class: `line ${colourOf(palette, name)}`, d: steps.join("") }), ...dots];
    });
    const answer = reading.nPrompt && reading.nPrompt < n ? [draw("rect", { class: "prompt-part", x: left, y: top, width: x(reading.nPrompt - 0.5) - left, height: high - top - bottom })] : [];
    const here = draw("line", { class: "here", x1: x(t), x2: x(t), y1: top, y2: high - bottom });
    const labels = draw("text", { x: left, y: high - 5 }, reading.nPrompt ? "tokens of the prompt (shaded) and the answer" : "tokens of the answer");
    const ranked = drawn.map(([name], i) => `${visible(name)} ${courses[i][t]?.toFixed(2) ?? "none"}`).join(", ");
    return draw("svg", { class: "chart", viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `${MEASURES[measure]}; at this token: ${ranked}` },
      ...answer, ...grid, here, ...lines, labels);
  }

  // ---- over the layers ------------------------------------------------------------------------

  #layers({ reading, palette }, t) {
    const columns = reading.ranked(t).filter(([, weight]) => weight).slice(0, MOST_COLUMNS).map(([expert]) => expert);
    const heads = columns.map((expert) => {
      const name = visible(reading.experts[expert]);
      return make("th", { scope: "col", title: name }, make("span", { class: `key ${colourOf(palette, reading.experts[expert])}` }), make("bdi", {}, name));
    });
    const rows = reading.shortSites.map((site, s) => make("tr", {}, make("th", { scope: "row", title: visible(reading.sites[s]) }, visible(site)), ...columns.map((expert) => {
      const weight = reading.at(t, s, expert);
      const cell = make("td", { class: colourOf(palette, reading.experts[expert]) }, weight ? weight.toFixed(2) : "·");
      cell.style.setProperty("--w", Math.min(Math.max(100 * weight, 0), 100));
      return cell;
    })));
    const table = make("table", { class: "layers" }, make("caption", {}, "Weight of each expert at each site, from the first layer up"),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "site"), ...heads)), make("tbody", {}, ...rows));
    return make("section", {}, make("h3", {}, "Layers"), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Layers" }, table));
  }
}
