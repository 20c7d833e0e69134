// The map: a figure of Bokeh, with a cursor for the keyboard.
function mapCard(page, figure) {
  const axes = h("select", {}), first = h("select", {}), second = h("select", {});
  const shade = h("select", {}), colour = h("select", {});
  const time = h("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0 });
  const said = h("output", {});
  const look = () => page.send({
    do: "looks", axes: axes.value, first: +first.value, second: +second.value,
    shade: shade.value, colour: colour.value, time: +time.value,
  });
  axes.addEventListener("change", () => { first.value = "0"; second.value = "1"; look(); });
  for (const one of [first, second, shade, colour]) one.addEventListener("change", look);
  const slow = settled(200, look);
  time.addEventListener("input", () => { said.textContent = short(+time.value); slow(); });
  const timeField = labelled("Time of the potential", time, { class: "field wide", hidden: true });
  timeField.append(said);
  const pin = h("button", { type: "button", onclick: () => page.send({ do: "pin" }) }, "Pin this latent");
  const unpin = h("button", { type: "button", onclick: () => page.send({ do: "unpin" }), disabled: true }, "Unpin all");
  const hint = h("p", { class: "hint", role: "status" });
  const ways = h("p", { class: "ways", role: "status", hidden: true });
  const scale = h("p", { class: "quiet" });
  const legend = h("ul", { class: "legend" });
  const bar = h("div", { class: "bar", hidden: true });
  const keys = h("div", {
    class: "plane", tabindex: 0, role: "application",
    "aria-label": "Map of the latent space. Arrows move a cursor, with Shift in large steps; Enter goes there, or measures the way there; Home brings the cursor back.",
  }, figure);
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  keys.addEventListener("keydown", (event) => {
    if (event.target !== keys && event.composedPath()[0] !== keys) return;
    const size = event.shiftKey ? 0.1 : 0.02;
    if (MOVES[event.key]) page.send({ do: "cursor", dx: MOVES[event.key][0] * size, dy: MOVES[event.key][1] * size });
    else if (event.key === "Home") page.send({ do: "cursor", home: true });
    else if (event.key === "Enter") { ask(); page.send({ do: "enter" }); }
    else return;
    event.preventDefault();
  });
  let asked = null;
  const ask = () => (asked = performance.now());
  keys.addEventListener("pointerup", ask, true);
  const card = h(
    "section", { class: "card map", "aria-label": "Map" },
    h("div", { class: "grid" }, labelled("Axes", axes), labelled("Across", first), labelled("Up", second)),
    h("div", { class: "grid two" }, labelled("Shaded by", shade), labelled("Codes coloured by", colour)),
    timeField, bar, keys, hint, ways, legend, scale,
    h("div", { class: "row" }, pin, unpin),
  );
  let hello, points = "";

  page.on("hello", (told) => {
    hello = told;
    points = told.points;
    options(axes, Object.entries(told.axes), "coordinates");
    options(shade, told.shades.map((name) => [name, name]), "nothing");
    options(colour, told.colours.map((name) => [name, name]), "nothing");
    colour.parentElement.hidden = told.colours.length < 2;
    time.max = told.horizon;
    time.step = told.horizon / 50;
    card.hidden = told.latent_dim < 2;
  });

  page.on("map", ({ looks, count, legend: classes }) => {
    axes.value = looks.axes;
    shade.value = looks.shade;
    colour.value = looks.colour;
    const start = looks.axes === "coordinates" ? 0 : 1;
    const all = Array.from({ length: Math.min(count, 512) }, (_, k) => [String(k), String(k + start)]);
    options(first, all, String(looks.first));
    options(second, all, String(looks.second));
    timeField.hidden = !hello.timed.includes(looks.shade);
    if (document.activeElement !== time) time.value = looks.time;
    said.textContent = short(+time.value);
    legend.replaceChildren(...classes.map(([tint, marker, name]) =>
      h("li", {}, h("i", { class: marker, style: `--tint: ${tint}` }), name)));
  });

  page.on("shade", (told) => {
    bar.hidden = true;
    const low = Math.abs(told.low) < 1e-3 * Math.abs(told.high) ? 0 : told.low;
    const range = told.name === "nothing" ? "" : `Shade: ${told.name}, ${short(low)} to ${short(told.high)}. `;
    const coloured = colour.value === "nothing" || legend.children.length ? "" : `Points: ${colour.value}, dark is low. `;
    scale.textContent = `${range}${coloured}Points are ${points}.`;
  });

  page.on("progress", (told) => {
    if (told.of !== "shade") return;
    bar.hidden = told.share >= 1;
    bar.style.setProperty("--share", `${100 * told.share}%`);
  });

  page.on("pins", (told) => {
    pin.textContent = told.count ? `Pin this latent (${told.count} of 3)` : "Pin this latent";
    unpin.disabled = !told.count;
  });

  function off(told) {
    hint.textContent = (told.measures ?? card.measures)
      ? "Tap: measure the way there from here." : "Tap: go there. Tap again: measure the way.";
    card.measures = told.measures ?? card.measures;
    if (told.off > 0.05) hint.textContent += ` You are ${short(told.off, 2)} off this plane.`;
  }
  page.on("image", off);
  page.on("place", off);

  page.on("ways", (told) => {
    ways.hidden = told.line_length == null;
    if (ways.hidden) return;
    if (asked != null) performance.measure("tap to ways", { start: asked, end: performance.now() });
    asked = null;
    const less = 100 * (1 - told.geodesic_length / told.line_length);
    const settled = told.converged ? "" : " The search had not settled.";
    const words = less >= 0.5 ? `: ${Math.round(less)}% shorter.` : ": hardly any shorter way was found.";
    ways.replaceChildren(
      h("b", { class: "geodesic" }, `geodesic ${short(told.geodesic_length)}`), ", ",
      h("b", { class: "straight" }, `straight line ${short(told.line_length)}`),
      ` in data space${words}${settled}`,
    );
  });
  return card;
}
