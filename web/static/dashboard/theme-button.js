// The button for light and dark. Without a choice the system decides.
const STORED = "headwater.theme";

export function chooseTheme(button) {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tell = () => {
    button.textContent = dark() ? "☀" : "☾";
    button.setAttribute("aria-label", dark() ? "Light theme" : "Dark theme");
    button.title = button.getAttribute("aria-label");
  };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem(STORED, root.dataset.theme);
    } catch {
      // Storage may be forbidden; the choice then lasts until the next load.
    }
    tell();
  });
  system.addEventListener("change", tell);
  tell();
}
