// What is asked for without an answer.
const SILENT = new Set(["release", "stop"]);

export function render({ model }) {
  const hearers = {};
  const heading = h("h1", {}, "…"), about = h("p", { class: "about" });
  const banner = h("div", { class: "banner", role: "alert", hidden: true });
  const notes = h("div", { class: "note", role: "status", hidden: true });
  const root = h("div", { class: "explorer" });
  const busy = h("p", { class: "busy", role: "status", hidden: true }, "working … (what is done for the first time is compiled first)");
  let begun = null, hide, slow;

  const page = {
    root,
    largest: model.largest,
    on: (kind, hear) => (hearers[kind] ??= []).push(hear),
    send(message) {
      model.send_msg(message);
      if (SILENT.has(message.do)) return;
      clearTimeout(slow);
      slow = setTimeout(() => (busy.hidden = false), 700);
    },
    tell(text, wrong = false) {
      notes.textContent = text;
      notes.classList.toggle("wrong", wrong);
      notes.hidden = false;
      clearTimeout(hide);
      hide = setTimeout(() => (notes.hidden = true), wrong ? 12000 : 4000);
    },
    began: (time) => (begun ??= time),
    // From the oldest slider event that is not on the screen yet to the picture that shows it.
    painted(told) {
      if (begun == null || told.seq == null) return;
      const start = begun;
      begun = null;
      requestAnimationFrame(() => performance.measure("slider to image", { start, end: performance.now() }));
    },
    remember: null,
  };

  let link = null;
  const keep = () => {
    if (link == null) return;
    const address = new URL(location.href);
    address.search = `?view=${link}`;
    history.replaceState(null, "", address);
  };
  page.remember = settled(400, keep);
  page.remember.now = keep;

  page.on("hello", (told) => {
    heading.textContent = told.run;
    document.title = `${told.run} · latent_flows`;
    about.textContent = `${told.generator}, ${told.latent_dim} latents`;
  });
  page.on("note", ({ text, wrong }) => page.tell(text, wrong));

  root.append(
    banner,
    h("header", {}, heading, about, busy),
    h("div", { class: "columns" },
      h("div", { class: "column" }, imageCard(page), pictureCard(page)),
      h("div", { class: "column" }, controlsCard(page)),
      h("div", { class: "column" }, mapCard(page, model.get_child("plane")), takeCard(page))),
    notes,
  );

  model.on("msg:custom", (event) => {
    const told = event.data ?? event;
    clearTimeout(slow);
    busy.hidden = true;
    if (told.link) { link = told.link; page.remember(); }
    for (const hear of hearers[told.kind] ?? []) hear(told);
  });
  watch(page, banner, model.command);
  page.send({ do: "ready", view: model.view });
  return root;
}
