// A picture of one's own.
function pictureCard(page) {
  const field = h("input", { type: "file", accept: "image/*", id: "own-picture" });
  const stop = h("button", { type: "button", hidden: true, onclick: () => page.send({ do: "stop" }) }, "Stop here");
  const bar = h("div", { class: "bar", hidden: true });
  const told = h("p", { class: "quiet", role: "status" });
  const pair = h("div", { class: "pair" });
  const zone = h("label", { class: "drop", for: "own-picture" }, h("b", {}, "Your picture"), " Drop one anywhere, or ", h("u", {}, "choose a file"), ".");
  const card = h("section", { class: "card picture", "aria-label": "Your picture" }, zone, field, pair, bar, told, h("div", { class: "row" }, stop));

  async function take(file) {
    if (!file) return;
    const most = (page.largest * 3) / 4 - 65536;
    if (file.size > most) {
      return page.tell(`${file.name} has ${Math.ceil(file.size / 2 ** 20)} MB; at most ${Math.floor(most / 2 ** 20)} MB are taken`, true);
    }
    const reader = new FileReader();
    reader.onload = () => page.send({ do: "picture", name: file.name, content: reader.result.slice(reader.result.indexOf(",") + 1) });
    reader.onerror = () => page.tell(`${file.name} cannot be read`, true);
    reader.readAsDataURL(file);
    told.textContent = `sending ${file.name} ...`;
  }
  field.addEventListener("change", () => { take(field.files[0]); field.value = ""; });

  const over = (on) => (event) => {
    if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    event.preventDefault();
    zone.classList.toggle("over", on);
  };
  const everywhere = page.root;
  everywhere.addEventListener("dragover", over(true));
  everywhere.addEventListener("dragleave", over(false));
  everywhere.addEventListener("drop", (event) => { over(false)(event); take(event.dataTransfer?.files[0]); });

  page.on("hello", ({ takes_pictures }) => (card.hidden = !takes_pictures));
  page.on("note", ({ wrong, of, done, text }) => {
    if (of === "picture" || done) {
      bar.hidden = stop.hidden = true;
      told.textContent = wrong ? text : "";
    }
  });
  page.on("picture", (found) => {
    const image = (address, words) => h("figure", {}, h("img", { src: address, alt: words }), h("figcaption", {}, words));
    pair.replaceChildren(
      image(found.target, found.changed ? "your picture, brought to size" : "your picture"),
      ...(found.image ? [image(found.image, "found")] : []),
    );
    bar.hidden = stop.hidden = found.done;
    bar.style.setProperty("--share", `${100 * found.share}%`);
    told.textContent = found.words;
  });
  return card;
}
