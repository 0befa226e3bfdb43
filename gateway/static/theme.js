// Dark or light: as the system is set, until someone chooses.

const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");

const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

function changed() {
  const button = document.querySelector("#theme");
  if (button) button.textContent = isDark() ? "Light" : "Dark";
  root.dispatchEvent(new Event("themechange"));
}

const chosen = localStorage.getItem("theme");
if (chosen) root.dataset.theme = chosen;

system.addEventListener("change", changed);
addEventListener("DOMContentLoaded", () => {
  changed();
  document.querySelector("#theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
    changed();
  });
});
