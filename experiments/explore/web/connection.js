// A page whose server is gone says so, and comes back to its view when the server does.
function watch(page, banner, command) {
  let lost = false;
  async function back() {
    try {
      const answer = await fetch("alive", { cache: "no-store" });
      if (answer.ok) return location.reload();
    } catch { /* not yet */ }
    setTimeout(back, 1000);
  }
  function gone() {
    if (lost) return;
    lost = true;
    page.remember.now();
    page.root.classList.add("lost");
    banner.hidden = false;
    banner.replaceChildren("The server is gone. Start it again by ", h("code", {}, command), "; this page then goes on from here by itself.");
    back();
  }
  const documents = window.Bokeh?.documents ?? [];
  for (const one of documents) one.on_event?.("connection_lost", gone);
  setInterval(async () => {
    if (lost || document.hidden) return;
    try { await fetch("alive", { cache: "no-store" }); } catch { gone(); }
  }, 4000);
}
