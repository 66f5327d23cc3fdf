// What a merge patch (RFC 7396) must say for objects to become others.

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/**
 * The merge patch that gives `before` the members of `after`, as they are there: what an object inside no longer has is
 * taken away by a null, because a patch merges objects. Members of `before` alone stay.
 * @param {Record<string, any>} before @param {Record<string, any>} after
 */
export function difference(before, after) {
  return Object.fromEntries(Object.entries(after).map(([name, value]) => {
    const former = before[name];
    if (!isObject(value) || !isObject(former)) return [name, value];
    const gone = Object.keys(former).filter((member) => !(member in value)).map((member) => [member, null]);
    return [name, { ...difference(former, value), ...Object.fromEntries(gone) }];
  }));
}
