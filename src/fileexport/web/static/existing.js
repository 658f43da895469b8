/** Which targets of uploads are there already: asked before, so that a question comes instead of an error. */

/** @typedef {"file" | "directory"} Kind anything that is no directory counts as a file */

export class Existing {
  /**
   * @param {(directory: string) => Promise<Map<string, Kind>>} read the names in a directory that is there;
   *   the empty path is where the uploads go, others end with a slash
   */
  constructor(read) {
    this.read = read;
    /** @type {Map<string, Promise<Map<string, Kind>>>} */
    this.known = new Map();
  }

  /**
   * Whether there is something of this path. Each directory is read once, and none that is not there.
   * @param {string} path
   * @returns {Promise<boolean>}
   */
  async has(path) {
    const names = path.split("/");
    const last = names.pop() ?? "";
    let directory = "";
    for (const name of names) {
      if ((await this.in(directory)).get(name) !== "directory") return false;
      directory += `${name}/`;
    }
    return (await this.in(directory)).has(last);
  }

  /** @param {string} directory */
  in(directory) {
    let names = this.known.get(directory);
    if (names === undefined) {
      names = this.read(directory);
      this.known.set(directory, names);
      // A failure is not for good: whoever tries again asks again.
      names.catch(() => this.known.delete(directory));
    }
    return names;
  }
}
