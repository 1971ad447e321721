// Small things that only the browser can do. Nothing here holds state that the server needs.
(() => {
  const THEME = "tuning-studio-theme"; // light or dark; absent: as the system says
  const wanted = () =>
    localStorage.getItem(THEME) ||
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const paint = () => document.body.classList.toggle("dark", wanted() === "dark");

  const markStep = (id) => {
    for (const button of document.querySelectorAll("button.ts-step"))
      button.setAttribute("aria-current", button.id === id ? "step" : "false");
  };

  let sent = 0;
  window.studio = {
    openedWith: location.search, // before anything changes the address
    turnTheme() {
      localStorage.setItem(THEME, wanted() === "dark" ? "light" : "dark");
      paint();
    },
    // The address tells project and step, so that a reload or a copied address finds them again.
    showAddress(project, step) {
      const query = new URLSearchParams();
      if (project) query.set("project", project);
      if (project && step) query.set("step", step);
      const text = query.toString();
      history.replaceState(null, "", text ? `?${text}` : location.pathname);
      markStep(`to-${step}`);
    },
    // The window's title, and what the colours of the steps mean, for those who do not see them.
    tell({ title, steps }) {
      document.title = title;
      for (const [step, state] of Object.entries(steps)) {
        const button = document.getElementById(`to-${step}`);
        button?.setAttribute("aria-label", `${button.innerText.trim() || step}: ${state}`);
        button?.setAttribute("title", state);
      }
    },
    copy(button) {
      const text = button.closest(".ts-code").querySelector("code").innerText;
      navigator.clipboard.writeText(text).then(() => {
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = "Copy"), 1500);
      });
    },
    // Tells a hidden text field what was chosen in a piece of HTML; numbered, so that choosing
    // the same once more is a change too.
    send(target, value) {
      const field = document.querySelector(`#${target} textarea, #${target} input`);
      field.value = `${value} #${++sent}`;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    },
    leave() {
      location.href = location.pathname;
    },
    top() {
      window.scrollTo({ top: 0 });
    },
  };

  // What is sent may fill its own piece of HTML anew: then the same control there gets the focus.
  const mark = (one) => JSON.stringify([{ ...one.dataset }, one.type === "radio" && one.value]);
  const keepFocus = (control) => {
    const wanted = mark(control);
    let looks = 0;
    const timer = setInterval(() => {
      const { activeElement: at, body } = document;
      const isLost = at === body && !control.isConnected;
      if (isLost || (at === control && mark(control) !== wanted)) // the latter is another's now
        [...document.querySelectorAll("[data-studio-send]")]
          .find((one) => mark(one) === wanted)
          ?.focus({ preventScroll: true });
      if (++looks > 60) clearInterval(timer);
    }, 50);
  };

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  const start = () => {
    document.documentElement.lang = "en";
    paint();
    // Gradio sets its own idea of the mode once it has started.
    new MutationObserver(() => {
      if (document.body.classList.contains("dark") !== (wanted() === "dark")) paint();
    }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    // Gradio mends HTML attribute by attribute, which a field that was touched does not heed.
    new MutationObserver((changes) => {
      for (const { target } of changes) {
        if (!target.matches("input[data-studio-send]")) continue;
        target.checked = target.hasAttribute("checked");
        if (target.type === "text" && target !== document.activeElement)
          target.value = target.getAttribute("value");
      }
    }).observe(document.body, {
      attributes: true, attributeFilter: ["checked", "value", "data-studio-name"], subtree: true,
    });
  };
  // Gradio tells screen readers another name of its upload fields than the one that is seen.
  let isDue = false;
  new MutationObserver(() => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      for (const field of document.querySelectorAll("button[aria-dropeffect][aria-label]"))
        field.removeAttribute("aria-label");
    });
  }).observe(document.documentElement, { childList: true, subtree: true });
  document.body ? start() : document.addEventListener("DOMContentLoaded", start);
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-studio-copy]");
    if (button) window.studio.copy(button);
    const opener = event.target.closest?.("button.ts-step");
    if (opener && !opener.disabled) markStep(opener.id); // at once; its content takes a moment
    const sender = event.target.closest?.("button[data-studio-send]");
    if (!sender) return;
    window.studio.send(sender.dataset.studioSend, sender.dataset.studioValue);
    keepFocus(sender);
  });
  document.addEventListener("change", ({ target }) => {
    if (!target.matches?.("input[data-studio-send]")) return;
    const { studioSend, studioName } = target.dataset;
    // Where several fields tell the same one, each says its name too.
    const value = target.type === "checkbox" ? target.checked : target.value;
    const told = studioName === undefined ? value : JSON.stringify([studioName, value]);
    window.studio.send(studioSend, told);
    keepFocus(target);
  });
})();
