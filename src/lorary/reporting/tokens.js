"use strict";
for (const trace of document.querySelectorAll(".trace")) {
  const spans = [...trace.querySelectorAll(".t")];
  const detail = trace.querySelector(".detail");
  const tell = (event) => {
    const span = event.target.closest(".t");
    if (span) detail.textContent = `${JSON.stringify(span.textContent)}: ${span.title}`;
  };
  for (const kind of ["mouseover", "focusin", "click"]) trace.addEventListener(kind, tell);

  const choice = trace.querySelector("select");
  if (!choice) continue;
  const { names, colours, tops } = JSON.parse(trace.querySelector("script").textContent);
  const show = () => spans.forEach((span, t) => {
    const top = tops[choice.value][t];
    span.className = `t e${colours[top[0][0]]}`;
    span.style.setProperty("--w", Math.min(Math.max(top[0][1], 0), 100));
    span.title = top.map(([expert, percent]) => `${names[expert]} ${percent} %`).join(", ");
  });
  choice.addEventListener("change", show);
  choice.value = "0"; // browsers keep the old choice on reload
}
