"use strict";
// A page of answers that were given: what they say stands in the page as JSON.

{
  const data = JSON.parse(document.getElementById("data").textContent);
  const panel = new Panel(document.getElementById("panel"));
  const readings = data.answers.map(({ told, n_prompt: nPrompt }) => new Reading(told, nPrompt));
  const palette = paletteOf(readings);
  readings.forEach((reading, i) => {
    const { title } = data.answers[i];
    const view = new AnswerView(title, reading, palette, (chosen, t) => panel.open(chosen, t));
    document.getElementById("answers").append(make("article", { class: "column" }, make("h2", { class: "model" }, named(title)), view.node));
  });
  if (data.map) {
    const map = new ExpertMap(data.map);
    document.getElementById("map").append(map.node);
    map.paint();
  }
}
