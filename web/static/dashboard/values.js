// Values as texts for people.

const TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const DAY = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false };
const RECENT = new Intl.DateTimeFormat(undefined, DAY);
const OLDER = new Intl.DateTimeFormat(undefined, { ...DAY, year: "numeric" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const NUMBER = new Intl.NumberFormat();
/** What a cell can show of a text. */
const CELL_CHARACTERS = 300;

/** A time as people write it; what is no time stays as it is. */
export function timeText(value) {
  const time = new Date(value);
  return Number.isNaN(time.getTime()) ? String(value) : TIME.format(time);
}

/** A time in a cell: without the year while it is this one. */
function cellTime(value) {
  const time = new Date(value);
  if (Number.isNaN(time.getTime())) return value;
  return (time.getFullYear() === new Date().getFullYear() ? RECENT : OLDER).format(time);
}

export function clockText(value) {
  const time = new Date(value);
  return Number.isNaN(time.getTime()) ? "" : CLOCK.format(time);
}

export function countText(value) {
  return NUMBER.format(value);
}

/** The value of a field in one line. What is stored may be anything, whatever the class says. */
export function cellText(value, kind) {
  if (value === undefined || value === null) return "";
  if (kind === "datetime" && typeof value === "string") return cellTime(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return kind === "integer" ? NUMBER.format(value) : String(value);
  if (Array.isArray(value) && value.every((one) => typeof one !== "object")) return value.join(", ").slice(0, CELL_CHARACTERS);
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return text.slice(0, CELL_CHARACTERS);
}
