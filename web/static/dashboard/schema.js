// What the fields of a class are, told from the JSON Schemas of its forms.

/** Texts longer than this are written in a box of several lines, and are no column by default. */
const LONG_TEXT = 500;

/** Fields that documents are called by, the best first. */
const TITLES = ["title", "name", "username", "filename", "body"];

/** The schema behind `$ref`s, without `null`, and whether null is allowed. */
function plain(schema, definitions) {
  let nullable = false;
  let found = schema;
  for (let depth = 0; depth < 10; depth += 1) {
    if (found.$ref) {
      const { $ref, ...rest } = found;
      found = { ...definitions[$ref.split("/").at(-1)], ...rest };
    } else if (found.anyOf) {
      const { anyOf, ...rest } = found;
      const others = anyOf.filter((one) => one.type !== "null");
      nullable ||= others.length < anyOf.length;
      if (others.length !== 1) return { found: { ...rest, anyOf: others }, nullable };
      found = { ...others[0], ...rest };
    } else {
      break;
    }
  }
  return { found, nullable };
}

function kindOf(schema) {
  if (schema.anyOf) {
    const types = schema.anyOf.map((one) => one.type).sort().join();
    // Decimals: a number, or its text, which keeps every digit.
    return types === "number,string" ? "decimal" : "object";
  }
  if (schema.enum || schema.const !== undefined) return "enum";
  if (schema.type === "string") {
    if (schema.format === "date-time") return "datetime";
    if (schema.format === "binary") return "bytes";
    if (schema.pattern === "^[0-9a-f]{24}$" || schema.format === "uuid") return "id";
    return schema.maxLength === undefined || schema.maxLength > LONG_TEXT ? "text" : "string";
  }
  if (schema.type === "array") return "list";
  if (schema.properties) return "group";
  return { integer: "integer", number: "number", boolean: "boolean" }[schema.type] ?? "object";
}

/** `author_id` as a person would write it. */
export function labelOf(name) {
  if (name === "id") return "ID";
  const words = name.replace(/_id$/, "").replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

const choicesOf = (schema) => schema.enum ?? (schema.const === undefined ? [] : [schema.const]);

/** What the items of a list are, where each is a single value that fits on a line; else null. */
function itemOf(schema, definitions) {
  if (schema.type !== "array" || !schema.items) return null;
  const { found, nullable } = plain(schema.items, definitions);
  const kind = kindOf(found);
  return nullable || ["list", "group", "object", "bytes"].includes(kind) ? null : { kind, choices: choicesOf(found) };
}

/**
 * The fields of one form, in its order.
 * @param {any} form A JSON Schema, or null.
 * @param {any} [definitions] Its `$defs`, for a schema inside another.
 * @returns {Array<{name: string, label: string, kind: string, item: {kind: string, choices: any[]} | null, required: boolean,
 *   nullable: boolean, description: string, choices: any[], schema: any, definitions: any, initial: any}>} `item` is what
 *   lists of the kind "values" hold.
 */
export function fieldsOf(form, definitions = form?.$defs ?? {}) {
  if (!form) return [];
  const required = new Set(form.required ?? []);
  return Object.entries(form.properties ?? {}).map(([name, schema]) => {
    const { found, nullable } = plain(schema, definitions);
    const item = itemOf(found, definitions);
    return {
      name,
      label: labelOf(name),
      kind: name === "id" ? "id" : item ? "values" : kindOf(found),
      item,
      required: required.has(name),
      nullable,
      description: found.description ?? "",
      choices: choicesOf(found),
      schema: found,
      definitions,
      initial: schema.default,
    };
  });
}

/** A class as the dashboard uses it: `columns` are its public fields, those a person looks for first in front. */
export function describe(content) {
  const written = new Map(fieldsOf(content.create).map((field) => [field.name, field]));
  const housekeeping = ["created_at", "created_by", "updated_at", "updated_by", "revision", "id"];
  // Which fields break the rules is told beside the document's own, and cannot be asked for.
  const columns = fieldsOf(content.public).filter((field) => field.name !== "invalid").map((field) => ({
    ...field,
    // The public form tells no limits; the form to write does, and so tells lines from long texts.
    kind: field.kind === "text" ? (written.get(field.name)?.kind ?? "string") : field.kind,
    reference: content.references[field.name] ?? null,
    sortable: content.sortable.includes(field.name),
  }));
  const rank = (field) => housekeeping.indexOf(field.name);
  columns.sort((one, other) => rank(one) - rank(other));
  const title = TITLES.find((name) => columns.some((one) => one.name === name)) ?? "id";
  for (const field of columns) field.title = field.name === title;
  // A text with a pattern is a code for programs, such as a slug; one that may be long is for the document's own page.
  const fits = (field) => !["object", "group", "list", "bytes"].includes(field.kind) && rank(field) < 0
    && !(written.get(field.name)?.schema.pattern || (field.kind === "text" && written.get(field.name)?.schema.maxLength));
  const usual = columns.filter((field) => field.title || fits(field));
  const needed = (field) => (field.title ? 2 : Number(written.get(field.name)?.required ?? false));
  usual.sort((one, other) => needed(other) - needed(one));
  return {
    ...content,
    columns,
    usual: [...usual.slice(0, 6).map((field) => field.name), ...(columns.some((one) => one.name === "created_at") ? ["created_at"] : ["id"])],
    title,
    sort: content.sortable.includes("created_at") ? "-created_at" : "id",
  };
}
