// What is taken along.
function takeCard(page) {
  const button = (what, text) => h("button", { type: "button", onclick: () => page.send({ do: "take", what }) }, text);
    const link = h("button", { type: "button", onclick: copy }, "Copy link to this view");
  const card = h("section", { class: "card take", "aria-label": "Take it along" },
    h("h2", {}, "Take it along"), h("div", { class: "row" }, button("png", "PNG"), button("gif", "GIF of the strip"), button("npy", "Latent (.npy)"), link));

  async function copy() {
    page.remember.now();
    try {
      await navigator.clipboard.writeText(location.href);
      page.tell("the link to this view is copied");
    } catch {
      page.tell("the link to this view is the address of this page: copy it from there");
    }
  }
  page.on("file", (file) => {
    const bytes = Uint8Array.from(atob(file.content), (c) => c.charCodeAt(0));
    const address = URL.createObjectURL(new Blob([bytes], { type: file.mime }));
    const anchor = h("a", { href: address, download: file.name });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
  return card;
}
