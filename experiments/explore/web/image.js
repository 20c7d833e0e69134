// The image, the strip of what is followed, and a scrubber along it.
const PLAY = 1000 / 15;

function imageCard(page) {
  const canvas = h("canvas", { class: "large", role: "img", "aria-label": "What is generated here" });
  const frame = h("div", { class: "frame" }, canvas);
  const origin = h("p", { class: "origin" });
  const facts = h("dl", { class: "facts" });
  const follow = h("select", { onchange: () => page.send({ do: "looks", track: follow.value }) });
  const strip = h("div", { class: "strip", "aria-hidden": "true" });
  const scrubber = h("input", { type: "range", min: 0, max: 0, value: 0, step: 1, class: "scrub" });
  const place = h("output", { class: "place" });
  const play = h("button", { type: "button", class: "play", onclick: () => (playing ? pause() : start()) }, "Play");
  const back = h("button", { type: "button", onclick: () => { pause(); show(null); } }, "Back to now");
  const use = h("button", { type: "button", class: "main", onclick: () => { pause(); page.send({ do: "use", frame: +scrubber.value }); } }, "Go there");
  let hello, now = null, shown = null, frames = null, timer = null, playing = false, way = 1;

  const card = h(
    "section", { class: "card image", "aria-label": "Image" },
    frame, origin, facts,
    h("div", { class: "row" }, labelled("Follow", follow, { class: "field grow" })),
    strip,
    labelled("Where along it", scrubber, { class: "field scrubber" }),
    h("div", { class: "row" }, play, back, use, place),
  );

  function draw(which) {
    if (hello.is_picture) {
      if (which == null) { if (now) drawPicture(canvas, now, 0, now.naturalWidth); }
      else drawPicture(canvas, frames.sheet, which * frames.width, frames.width);
    } else {
      const row = which == null ? now : frames.rows[which];
      if (row) drawRow(canvas, row, hello.range, { start: which == null ? null : now });
    }
  }

  function show(which) {
    shown = which;
    draw(which);
    const moving = which != null && frames;
    frame.classList.toggle("elsewhere", Boolean(moving));
    use.disabled = back.disabled = !moving;
    const at = moving ? which : frames ? +scrubber.value : null;
    const text = at == null || !frames ? "" : said(at);
    place.textContent = moving ? text : "";
    scrubber.setAttribute("aria-valuetext", text);
    strip.querySelectorAll("button").forEach((b) => b.classList.toggle("here", Boolean(moving) && nearest(+b.dataset.at, which)));
  }

  const step = () => Math.max(1, Math.round((frames.count - 1) / 8));
  const nearest = (at, which) => Math.abs(at - which) <= step() / 2;
  const said = (at) => {
    const value = frames.places[at];
    return frames.is_way ? `${Math.round(100 * value)}% of the way` : `${signed(value)} ${frames.unit}`;
  };

  function start() {
    if (!frames) return;
    playing = true;
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => {
      let at = +scrubber.value + way;
      if (at < 0 || at >= frames.count) { way = -way; at = +scrubber.value + way; }
      scrubber.value = at;
      show(Math.max(0, Math.min(at, frames.count - 1)));
    }, frames.count > 17 ? PLAY : 2 * PLAY);
  }

  function pause() {
    playing = false;
    clearInterval(timer);
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  }

  scrubber.addEventListener("input", () => { pause(); show(+scrubber.value); });

  function thumbnails() {
    const count = Math.min(9, frames.count);
    strip.replaceChildren(...Array.from({ length: count }, (_, k) => {
      const at = Math.round((k * (frames.count - 1)) / Math.max(count - 1, 1));
      const small = h("canvas", { class: hello.is_picture ? "" : "numbers" });
      const button = h("button", { type: "button", tabindex: -1, "data-at": at, class: at === frames.start && !frames.is_way ? "start" : "",
        onclick: () => { pause(); scrubber.value = at; show(at); } }, small, h("span", {}, frames.is_way ? `${Math.round(100 * frames.places[at])}%` : short(frames.places[at], 2)));
      return button;
    }));
    strip.querySelectorAll("button").forEach((button) => {
      const small = button.querySelector("canvas"), at = +button.dataset.at;
      if (hello.is_picture) drawPicture(small, frames.sheet, at * frames.width, frames.width);
      else drawRow(small, frames.rows[at], hello.range, { axes: false });
    });
  }

  page.on("hello", (told) => {
    hello = told;
    canvas.classList.toggle("numbers", !told.is_picture);
    if (told.is_picture) canvas.style.aspectRatio = `${told.shape[1]} / ${told.shape[0]}`;
    canvas.classList.toggle("sharp", told.is_picture && Math.min(told.shape[0], told.shape[1]) <= 128);
    if (told.how_drawn) card.querySelector(".origin").after(h("p", { class: "quiet" }, told.how_drawn));
  });

  async function seen(told) {
    if (told.image) {
      const image = await loaded(told.image);
      if (told.turn < newest) return;
      now = image;
    } else now = told.row;
    if (!playing && shown != null) pause(), (shown = null);
    if (!playing) show(null);
    facts.replaceChildren(...hello.factors.map((name, k) => h("div", {}, h("dt", {}, name), h("dd", {}, short(told.factors[k])))));
    page.painted(told);
  }
  let newest = 0;
  const arrive = (told) => { told.turn = ++newest; return seen(told); };
  page.on("image", arrive);

  page.on("place", (told) => {
    origin.textContent = told.origin;
    canvas.setAttribute("aria-label", `What is generated here: ${told.origin}`);
    const entries = hello.controls.map((control) => [control.name, control.name]);
    if (told.ways) entries.unshift(["geodesic", "the geodesic to the target"], ["straight line", "the straight line to the target"]);
    options(follow, entries, told.track);
    arrive(told);
  });

  let strips = 0;
  page.on("strip", async (told) => {
    const turn = ++strips;
    if (told.sheet) {
      // Until it has come, what was there is shown; what came later is not replaced.
      told.sheet = await loaded(told.sheet);
      told.width = told.sheet.naturalWidth / told.count;
      if (turn < strips) return;
    }
    const resume = playing;
    pause();
    frames = told;
    follow.value = told.title;
    scrubber.max = told.count - 1;
    scrubber.value = told.is_way ? 0 : told.start;
    scrubber.setAttribute("aria-label", `Along ${told.title}`);
    thumbnails();
    show(null);
    if (resume) start();
  });

  window.addEventListener("resize", settled(150, () => { if (hello && !hello.is_picture) { draw(shown); if (frames) thumbnails(); } }));
  return card;
}
