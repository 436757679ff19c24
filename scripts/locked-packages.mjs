/** What package-lock.json says of which packages need which. Plain JavaScript, since it is used before any is installed. */

/**
 * The packages that these folders of a lock need ("" is the project itself), with what those need.
 *
 * @param {Record<string, any>} locked `packages` of package-lock.json
 * @param {readonly string[]} folders
 * @param {{ dev?: boolean }} [options] whether the folders' own dev dependencies count too; default true
 * @returns {string[]} their places, such as "node_modules/zod"
 */
export function packagesOf(locked, folders, { dev = true } = {}) {
  const needed = new Set();
  const visit = (folder, { dependencies, optionalDependencies }, more = {}) => {
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies, ...more })) {
      const place = placeOf(locked, folder, name);
      if (place === undefined || needed.has(place)) continue;
      needed.add(place);
      visit(place, locked[place]);
    }
  };
  for (const folder of folders) visit(folder, locked[folder], dev ? locked[folder].devDependencies : {});
  return [...needed];
}

/** Where Node finds a package from a folder: in the nearest node_modules, going up. */
function placeOf(locked, folder, name) {
  for (let from = folder; ; from = from.includes("/") ? from.slice(0, from.lastIndexOf("/")) : "") {
    const place = from === "" ? `node_modules/${name}` : `${from}/node_modules/${name}`;
    if (place in locked) return place;
    if (from === "") return undefined;
  }
}
