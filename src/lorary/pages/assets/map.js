"use strict";
// The library's map: how alike its experts are, as a picture that can be walked with the arrow keys.

const ALIKE = 1e-3; // as in the figures of reports: cosines closer than this show no structure
const MOST_LABELS = 40;

class ExpertMap {
  /** told: experts in the order of their tree, and the cosines between them. */
  constructor(told) {
    Object.assign(this, told, { row: 0, column: Math.min(1, told.experts.length - 1) });
    let [low, high] = this.experts.length > 1 ? [Infinity, -Infinity] : [0, 1];
    this.cosines.forEach((row, i) => row.forEach((cosine, j) => {
      if (i !== j) [low, high] = [Math.min(low, cosine), Math.max(high, cosine)];
    }));
    [this.low, this.high] = high - low < ALIKE ? [Math.min(0, low), 1] : [low, high];
    this.canvas = make("canvas", {
      tabindex: "0", role: "application", "aria-label": "Map of the experts; the arrow keys go from pair to pair", "aria-describedby": "map-told",
      keydown: (event) => this.#walk(event), pointermove: (event) => this.#point(event), click: (event) => this.#point(event), focus: () => this.#tell(),
    });
    const n = this.experts.length;
    this.told = make("p", { id: "map-told", class: "told", "aria-live": "polite" }, n > 1 ? "Point at a pair of experts, or use the arrow keys." : "One expert has nobody to be compared with.");
    const labels = n <= MOST_LABELS ? [make("ol", { class: "map-labels", "aria-hidden": "true" }, ...this.experts.map((name) => make("li", { title: visible(name) }, visible(name))))] : [];
    this.node = make("div", {}, make("div", { class: `map${labels.length ? "" : " bare"}` }, ...labels, this.canvas), this.told,
      make("p", { class: "note" }, `Cosine between the products of ${n} experts, in the order of their tree: from ${this.low.toFixed(2)} (faint) to ${this.high.toFixed(2)} (strong).`));
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", () => this.paint());
  }

  /** Paint it; it has to be in the page, for its colours are the page's. */
  paint() {
    const n = this.experts.length;
    const side = Math.max(1, Math.floor(640 / n));
    this.canvas.width = this.canvas.height = side * n;
    const context = this.canvas.getContext("2d");
    const style = getComputedStyle(this.canvas);
    const [accent, line, ink] = ["--accent", "--line", "--ink"].map((name) => style.getPropertyValue(name).trim());
    for (let i = 0; i < n; i += 1) for (let j = 0; j < n; j += 1) {
      const strength = this.high > this.low ? (this.cosines[i][j] - this.low) / (this.high - this.low) : 0;
      context.globalAlpha = i === j ? 1 : Math.min(Math.max(strength, 0), 1) * 0.94 + 0.04;
      context.fillStyle = i === j ? line : accent;
      context.fillRect(j * side, i * side, side, side);
    }
    context.globalAlpha = 1;
    if (!this.isPointing) return;
    context.strokeStyle = ink;
    context.lineWidth = Math.max(2, side / 12);
    context.strokeRect(this.column * side, this.row * side, side, side);
  }

  #walk(event) {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    this.#go(this.row + step[0], this.column + step[1]);
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    const n = this.experts.length;
    this.#go(Math.floor((n * (event.clientY - box.top)) / box.height), Math.floor((n * (event.clientX - box.left)) / box.width));
  }

  #go(row, column) {
    const last = this.experts.length - 1;
    this.row = Math.min(Math.max(row, 0), last);
    this.column = Math.min(Math.max(column, 0), last);
    this.#tell();
  }

  #tell() {
    if (this.experts.length < 2) return;
    this.isPointing = true;
    this.paint();
    const near = this.cosines[this.row].map((cosine, i) => [cosine, i]).filter(([, i]) => i !== this.row).sort((one, other) => other[0] - one[0]).slice(0, 3);
    const pair = this.row === this.column ? [] : [" and ", named(this.experts[this.column]), `: ${this.cosines[this.row][this.column].toFixed(3)}`];
    const list = near.flatMap(([cosine, i], place) => [place ? ", " : "", named(this.experts[i]), ` ${cosine.toFixed(2)}`]);
    this.told.replaceChildren(make("b", {}, named(this.experts[this.row])), ...pair, ". Nearest to it: ", ...list, ".");
  }
}
