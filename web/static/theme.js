// Runs before the first paint, so that a chosen theme does not flash in the other one. Without a choice the system's holds.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("headwater.theme");
  } catch {
    // Storage may be forbidden; the system's theme holds then.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
