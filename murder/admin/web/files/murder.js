"use strict";
// The menu is open where there is room for it.
const menu = document.querySelector(".menu");
const wide = matchMedia("(min-width: 60rem)");
function fit() { if (menu) menu.open = wide.matches; }
wide.addEventListener("change", fit);
fit();

// A form is sent once.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) { event.preventDefault(); return; }
  event.target.dataset.sent = "1";
  for (const button of event.target.querySelectorAll("button")) setTimeout(() => { button.disabled = true; });
});
addEventListener("pageshow", () => {
  for (const form of document.forms) {
    delete form.dataset.sent;
    for (const button of form.querySelectorAll("button")) button.disabled = false;
  }
});

// What is live is fetched again while somebody looks. One request at a time; the focus stays where it was.
for (const region of document.querySelectorAll("[data-live]")) {
  const pause = 1000 * Number(region.dataset.every);
  const toggle = document.querySelector("[data-live-switch]");
  async function again() {
    const stands = toggle && !toggle.checked || document.hidden || region.contains(getSelection().anchorNode) && !getSelection().isCollapsed;
    if (!stands) {
      try {
        const answer = await fetch(region.dataset.live, {signal: AbortSignal.timeout(20000), redirect: "error"});
        if (answer.status === 401) { location.reload(); return; }
        take(await answer.text(), !answer.ok);
      } catch {
        region.classList.add("stale");
      }
    }
    setTimeout(again, pause);
  }
  function take(text, failed) {
    const fresh = new DOMParser().parseFromString(text, "text/html").body;
    const said = region.querySelector("[aria-live]"), says = fresh.querySelector("[aria-live]");
    if (said && says && !failed) { // the element stays, so that readers hear of what changes in it, and of nothing else
      if (said.textContent !== says.textContent) said.replaceChildren(...says.childNodes);
      says.replaceWith(said);
    }
    const held = region.contains(document.activeElement) ? document.activeElement.id : "";
    region.replaceChildren(...fresh.childNodes);
    region.classList.remove("stale");
    if (held) document.getElementById(held)?.focus();
  }
  setTimeout(again, pause);
}
