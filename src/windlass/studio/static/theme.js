// Runs before the first paint, so that a remembered theme never flashes the other one.
(() => {
  let theme = null;
  try { theme = localStorage.getItem("windlass-theme"); } catch { /* storage may be switched off */ }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  document.documentElement.classList.add("js");
})();
