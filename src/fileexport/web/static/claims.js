/**
 * Which tab of this browser an upload belongs to, so that two do not send one file to one place. A claim
 * ends with its tab. Without TLS, and other than on this machine, browsers have no locks: then every claim
 * is granted.
 */

/** @param {string} url */
function nameOf(url) {
  return `fileexport upload ${url}`;
}

/**
 * Claim the upload of this URL. Resolves with what gives it back, or with null where another tab has it.
 * @param {string} url
 * @returns {Promise<(() => void) | null>}
 */
export function claim(url) {
  if (!navigator.locks) return Promise.resolve(() => {});
  return new Promise((resolve, reject) => {
    const hold = (lock) => {
      if (lock === null) return resolve(null);
      return new Promise((release) => resolve(() => release(undefined)));
    };
    navigator.locks.request(nameOf(url), { ifAvailable: true }, hold).catch(reject);
  });
}

/**
 * Those of the URLs that a tab has claimed, this one too.
 * @param {Iterable<string>} urls
 * @returns {Promise<Set<string>>}
 */
export async function claimed(urls) {
  if (!navigator.locks) return new Set();
  const { held = [] } = await navigator.locks.query();
  const names = new Set(held.map((lock) => lock.name));
  return new Set(Array.from(urls).filter((url) => names.has(nameOf(url))));
}
