"use strict";
// What is known of one text: its tokens, and the weight of each expert at each token and site.

const N_COLOURS = 8; // the next class, e8, is grey

/** Make an element; strings become text, never HTML. */
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const NAMED_SIGNS = { "\n": "↵\n", "\r": "␍", "\t": "⇥\t" };
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Show what can't be seen, or turns around what stands beside it, by a sign. */
function visible(text) {
  return String(text).replace(UNSEEN, (sign) => NAMED_SIGNS[sign] ?? `⟨${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/** An expert's name, or another's that isn't ours, apart from the text around it. */
function named(text) {
  return make("bdi", {}, visible(text));
}

function percent(weight) {
  return `${Math.round(100 * weight)} %`;
}

function counted(nTokens) {
  return `${nTokens} token${nTokens === 1 ? "" : "s"}`;
}

class Reading {
  /** told: as the server's `trace`; nPrompt: how many of the first tokens are the prompt's. */
  constructor(told, nPrompt = 0) {
    this.experts = told.experts;
    this.sites = told.sites;
    this.weights = told.weights;
    this.tokens = told.tokens.slice(0, told.weights.length);
    this.nPrompt = Math.min(nPrompt, this.tokens.length);
    this.leftOut = told.left_out;
    this.evidence = told.evidence?.slice(0, this.tokens.length).map((pairs) => new Map(pairs)) ?? null; // of a router that keeps some
    this.means = this.weights.map((sites) => {
      const mean = new Map();
      for (const pairs of sites) for (const [expert, weight] of pairs) mean.set(expert, (mean.get(expert) ?? 0) + weight / sites.length);
      return mean;
    });
  }

  /** Experts of a token by their mean over the sites, the largest first: pairs of number and weight. */
  ranked(t) {
    return [...this.means[t]].sort((one, other) => other[1] - one[1]);
  }

  /** The expert with the largest mean weight at a token; null where all are alike. */
  leader(t) {
    const [first, second] = this.ranked(t);
    if (!first) return null;
    const isEven = second && first[1] - second[1] < 1e-6 && first[1] < 1 / this.experts.length + 1e-6;
    return isEven ? null : first;
  }

  /** Shares of the experts in the answer, if there is one, the largest first: pairs of number and share. */
  shares(from = this.nPrompt < this.tokens.length ? this.nPrompt : 0) {
    const sum = new Map();
    for (const mean of this.means.slice(from)) for (const [expert, weight] of mean) sum.set(expert, (sum.get(expert) ?? 0) + weight);
    const n = this.tokens.length - from;
    return [...sum].map(([expert, weight]) => [expert, weight / n]).sort((one, other) => other[1] - one[1]);
  }

  /** An expert's weight at a token and site. */
  at(t, site, expert) {
    const pair = this.weights[t][site].find(([number]) => number === expert);
    return pair ? pair[1] : 0;
  }

  /** Names of the sites without what all begin with. */
  get shortSites() {
    const parts = this.sites.map((site) => site.split("."));
    let n = 0;
    while (parts.length > 1 && parts.every((part) => part.length > n + 1 && part[n] === parts[0][n])) n += 1;
    return parts.map((part) => part.slice(n).join("."));
  }
}

/** Colours of experts by name; an expert keeps the one it had in `before`, as far as there are enough. */
function paletteOf(readings, before = new Map()) {
  const shares = new Map();
  for (const reading of readings) for (const [expert, share] of reading.shares(0)) {
    const name = reading.experts[expert];
    shares.set(name, (shares.get(name) ?? 0) + share);
  }
  const loudest = [...shares].sort((one, other) => other[1] - one[1]).slice(0, N_COLOURS).map(([name]) => name);
  const palette = new Map(loudest.filter((name) => before.has(name)).map((name) => [name, before.get(name)]));
  const free = [...Array(N_COLOURS).keys()].filter((colour) => ![...palette.values()].includes(colour));
  for (const name of loudest) if (!palette.has(name)) palette.set(name, free.shift());
  return palette;
}

function colourOf(palette, name) {
  return `e${palette.get(name) ?? N_COLOURS}`;
}
