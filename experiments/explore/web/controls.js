const STEPS = 100; // of a slider either way

// The sliders, and what goes somewhere at once.
function controlsCard(page) {
  const draws = h("input", { type: "number", min: 0, max: 2147483647, value: 0, step: 1 });
  const codes = h("input", { type: "number", min: 0, value: 0, step: 1 });
  const goTo = (verb, field) => () => field.reportValidity() && field.value !== "" && page.send({ do: verb, number: +field.value });
  const random = h("button", { type: "button", class: "main", onclick: () => { draws.value = Math.floor(Math.random() * 100000); goTo("random", draws)(); } }, "Random");
  const undo = h("button", { type: "button", onclick: () => page.send({ do: "undo" }) }, "Undo");
  const redo = h("button", { type: "button", onclick: () => page.send({ do: "redo" }) }, "Redo");
  const reset = h("button", { type: "button", title: "All sliders to 0", onclick: () => page.send({ do: "reset" }) }, "Reset");
  const onEnter = (call) => (event) => event.key === "Enter" && call();
  draws.addEventListener("change", goTo("random", draws));
  codes.addEventListener("change", goTo("code", codes));
  codes.addEventListener("keydown", onEnter(goTo("code", codes)));
  const codeField = labelled("Code of example", codes);
  const sliders = h("div", { class: "sliders" });
  const extras = h("div", { class: "extras" });
  const card = h(
    "section", { class: "card controls", "aria-label": "Controls" },
    h("div", { class: "row" }, random, undo, redo, reset),
    h("div", { class: "row numbers" }, labelled("Draw of the prior", draws), codeField),
    extras, sliders,
  );
  let arrivals = 0, rows = [], waiting = false, sent = 0, next = null, hello, truncation, layers, label;

  // One message is on its way at a time; of what is moved meanwhile only the last counts.
  function move(message) {
    next = message;
    if (!waiting) flush();
  }
  function flush() {
    if (!next) return;
    waiting = true;
    page.send({ ...next, seq: ++sent, arrivals });
    next = null;
  }
  function arrived(told) {
    if (told.seq == null) return;
    waiting = false;
    flush();
  }
  page.on("image", arrived);
  page.on("place", (told) => {
    if (told.arrivals !== arrivals) next = null;
    arrivals = told.arrivals;
    arrived(told);
  });
  page.on("note", arrived);

  function slider(control, index) {
    const input = h("input", { type: "range", min: -STEPS, max: STEPS, step: 1, value: 0 });
    const amount = () => (+input.value / STEPS) * control.reach;
    const value = h("output", {});
    const zero = h("button", { type: "button", class: "zero", "aria-label": `${control.name} to 0`, onclick: () => { input.value = 0; input.dispatchEvent(new Event("input")); input.dispatchEvent(new Event("change")); } }, "0");
    const warning = h("p", { class: "warning", role: "status" });
    input.id = `slider-${index}`;
    input.addEventListener("input", () => {
      page.began(performance.now());
      say(row, amount());
      move({ do: "slide", index, amount: amount() });
    });
    input.addEventListener("change", () => {
      const release = () => (waiting || next ? setTimeout(release, 20) : page.send({ do: "release", index }));
      release();
    });
    const element = h(
      "div", { class: "slider" },
      h("div", { class: "line" }, h("label", { for: input.id }, control.name), zero, value),
      input, warning,
    );
    const row = { control, input, value, warning, element, good: [-control.reach, control.reach], missing: 0 };
    return row;
  }

  function say(row, amount) {
    const { control, good } = row;
    row.value.textContent = amount === 0 ? "0" : `${signed(amount)} ${control.unit}`.trim();
    row.input.setAttribute("aria-valuetext", row.value.textContent);
    const slack = 1e-6 * control.reach;
    let words = "";
    if (amount !== 0 && (amount < good[0] - slack || amount > good[1] + slack)) {
      words = `Beyond ${short(good[0])} to ${short(good[1])}: ${control.basis}.`;
    } else if (amount !== 0 && row.missing > 0.25) {
      words = `The generator does ${Math.max(0, Math.round(100 * (1 - row.missing)))}% of this here.`;
    }
    row.warning.textContent = words;
    row.element.classList.toggle("beyond", words !== "");
    row.element.classList.toggle("moved", amount !== 0);
    const share = (v) => `${Math.max(0, Math.min(100, (50 * (v + control.reach)) / control.reach))}%`;
    row.input.style.setProperty("--from", share(good[0]));
    row.input.style.setProperty("--to", share(good[1]));
  }

  page.on("hello", (told) => {
    hello = told;
    codeField.hidden = !told.codes;
    codes.max = Math.max(0, told.codes - 1);
    rows = told.controls.map(slider);
    const groups = new Map();
    rows.forEach((row) => {
      if (!groups.has(row.control.group)) groups.set(row.control.group, []);
      groups.get(row.control.group).push(row);
    });
    let open = 0; // as many as fit beside the image
    sliders.replaceChildren(...[...groups].map(([name, own], k) => {
      open += own.length;
      return h("details", { open: k === 0 || open <= 10 }, h("summary", {}, name), ...own.map((row) => row.element));
    }));
    extras.replaceChildren();
    if (told.truncates) {
      truncation = h("input", { type: "range", min: 0, max: 1.5, step: 0.01, value: 1 });
      const said = h("output", {}, "1");
      truncation.addEventListener("input", () => {
        said.textContent = short(+truncation.value);
        move({ do: "truncation", value: +truncation.value });
      });
      truncation.addEventListener("change", () => page.send({ do: "release", index: -1 }));
      truncation.id = "truncation";
      extras.append(h("div", { class: "slider" }, h("div", { class: "line" }, h("label", { for: "truncation" }, "Truncation"), said), truncation));
    }
    if (told.classes) {
      label = h("input", { type: "number", min: 0, max: told.classes - 1, step: 1 });
      label.addEventListener("change", () => label.value !== "" && label.reportValidity() && page.send({ do: "label", label: +label.value }));
      extras.append(labelled("Class", label));
    }
    if (told.layers) {
      const field = () => h("input", { type: "number", min: 0, max: told.layers - 1, step: 1, value: 0 });
      layers = [field(), field()];
      layers[1].value = told.layers - 1;
      layers.forEach((one) => one.addEventListener("change", () => {
        if (one.value === "" || !one.reportValidity()) return;
        page.send({ do: "layers", first: +layers[0].value, last: +layers[1].value });
      }));
      extras.append(h("div", { class: "row numbers" }, labelled("First layer moved", layers[0]), labelled("Last layer moved", layers[1])));
    }
  });

  function set(told) {
    rows.forEach((row, k) => {
      row.missing = told.missing[k];
      if (told.good) row.good = told.good[k];
      if (k !== told.changed) row.input.value = (told.amounts[k] / row.control.reach) * STEPS;
      say(row, k === told.changed ? (+row.input.value / STEPS) * row.control.reach : told.amounts[k]);
    });
    undo.disabled = !told.undo;
    redo.disabled = !told.redo;
    if (told.kind === "place" && layers) {
      told.layers.forEach((value, k) => (layers[k].value = value));
      layers[0].max = told.layers[1];
      layers[1].min = told.layers[0];
    }
    if (told.kind === "place" && label && told.label != null) label.value = told.label;
    if (told.kind === "place" && truncation) truncation.value = told.truncation;
  }
  page.on("image", set);
  page.on("place", set);
  return card;
}
