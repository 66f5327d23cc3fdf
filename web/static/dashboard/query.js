// What is shown of a class: conditions, words, order, columns, pages; kept in the address, so that a link shows the same.
import { valueOf } from "./field.js";

/** What can be asked of a field, by its kind: a word for the address, words for people, and the filter. */
const OPERATORS = {
  contains: ["contains", (value) => ({ $contains: value })],
  starts: ["starts with", (value) => ({ $startswith: value })],
  is: ["is", (value) => ({ $eq: value })],
  isnot: ["is not", (value) => ({ $ne: value })],
  gt: [">", (value) => ({ $gt: value })],
  gte: ["≥", (value) => ({ $gte: value })],
  lt: ["<", (value) => ({ $lt: value })],
  lte: ["≤", (value) => ({ $lte: value })],
  since: ["since", (value) => ({ $gte: value })],
  before: ["before", (value) => ({ $lt: value })],
  has: ["has", (value) => ({ $eq: value })],
  lacks: ["has not", (value) => ({ $ne: value })],
  there: ["is set", () => ({ $exists: true })],
  absent: ["is not set", () => ({ $exists: false })],
};

const BY_KIND = {
  string: ["contains", "starts", "is", "isnot"],
  text: ["contains", "starts", "is", "isnot"],
  enum: ["is", "isnot"],
  boolean: ["is"],
  integer: ["is", "isnot", "gt", "gte", "lt", "lte"],
  number: ["is", "isnot", "gt", "gte", "lt", "lte"],
  decimal: ["is", "isnot", "gt", "gte", "lt", "lte"],
  datetime: ["since", "before"],
  id: ["is", "isnot"],
  values: ["has", "lacks"],
  bytes: [],
  list: [],
  group: [],
  object: [],
};

export const PAGE_SIZES = [50, 100, 500, 0];
export const LIMIT = 1_000;
export const MOST = 10_000;

/** The operators for a field, the usual one first. */
export function operatorsOf(field) {
  return [...BY_KIND[field.kind], "there", "absent"];
}

export const operatorText = (operator) => OPERATORS[operator]?.[0] ?? operator;
export const takesValue = (operator) => operator !== "there" && operator !== "absent";

/** What a condition on a field is about: of a list, one of its items. */
export const subjectOf = (field) => field.item ?? field;

/** A condition's value as the filter has it. */
function conditionValue(field, text) {
  const subject = subjectOf(field);
  if (subject.kind !== "datetime") return valueOf(subject, text);
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? text : time.toISOString();
}

/** One query. It is never changed; `with` gives another one. */
export class Query {
  /** @param {{where?: [string, string, string][], words?: string, sort?: string[], columns?: string[] | null,
   *   size?: number, page?: number, limit?: number}} [parts] */
  constructor(parts = {}) {
    this.where = parts.where ?? [];
    this.words = parts.words ?? "";
    this.sort = parts.sort ?? [];
    this.columns = parts.columns ?? null;
    this.size = parts.size ?? 100;
    this.page = parts.page ?? 1;
    this.limit = parts.limit ?? LIMIT;
  }

  with(parts) {
    // Another result begins at its first page.
    return new Query({ ...this, page: 1, ...parts });
  }

  /** The query in an address; what makes no sense there is left out. */
  static parse(text) {
    const parameters = new URLSearchParams(text);
    let where = [];
    try {
      where = JSON.parse(parameters.get("where") ?? "[]").filter(
        (one) => Array.isArray(one) && one.length === 3 && one.every((part) => typeof part === "string") && OPERATORS[one[1]]);
    } catch {
      // Somebody wrote the address by hand.
    }
    const list = (name) => parameters.get(name)?.split(",").filter(Boolean);
    const size = Number(parameters.get("size") ?? 100);
    return new Query({
      where,
      words: parameters.get("words") ?? "",
      sort: list("sort"),
      columns: list("columns") ?? null,
      size: PAGE_SIZES.includes(size) ? size : 100,
      page: Math.max(1, Math.trunc(Number(parameters.get("page") ?? 1)) || 1),
      limit: Number(parameters.get("limit")) === MOST ? MOST : LIMIT,
    });
  }

  toString() {
    const parameters = new URLSearchParams();
    if (this.where.length) parameters.set("where", JSON.stringify(this.where));
    if (this.words) parameters.set("words", this.words);
    if (this.sort.length) parameters.set("sort", this.sort.join(","));
    if (this.columns) parameters.set("columns", this.columns.join(","));
    if (this.size !== 100) parameters.set("size", String(this.size));
    if (this.page > 1) parameters.set("page", String(this.page));
    if (this.limit !== LIMIT) parameters.set("limit", String(this.limit));
    return parameters.toString();
  }

  /** The columns that there are, or the usual ones. */
  shown(description) {
    const known = (this.columns ?? []).filter((name) => description.columns.some((field) => field.name === name));
    return known.length ? known : description.usual;
  }

  order(description) {
    const known = this.sort.filter((term) => description.sortable.includes(term.replace(/^-/, "")));
    return known.length ? known : [description.sort];
  }

  /** MongoDB's form of the conditions and words; `{}` without any. */
  filter(description) {
    const parts = [];
    for (const [name, operator, text] of this.where) {
      const field = description.columns.find((one) => one.name === name);
      if (field) parts.push({ [name]: OPERATORS[operator][1](conditionValue(field, text)) });
    }
    for (const word of this.words.split(/\s+/).filter(Boolean).slice(0, 6)) {
      const anywhere = description.searchable.map((name) => ({ [name]: { $contains: word } }));
      if (anywhere.length) parts.push(anywhere.length === 1 ? anywhere[0] : { $or: anywhere });
    }
    return parts.length > 1 ? { $and: parts } : (parts[0] ?? {});
  }
}
