/** Keys that let requests in, compared in constant time and kept as digests only. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { ApiError } from './api-error';

export class ApiKeys {
  readonly #digests: readonly Buffer[];

  constructor(keys: readonly string[]) {
    this.#digests = keys.map(digestOf);
  }

  get required(): boolean {
    return this.#digests.length > 0;
  }

  /** Gives the key's owner, '' where no keys are asked for. @throws ApiError 401 */
  check(authorization: string | undefined): string {
    if (!this.required) return '';
    const given = digestOf(/^Bearer +(\S+) *$/i.exec(authorization ?? '')?.[1] ?? '');
    // All of them are compared, so that the time does not tell which one is near.
    let known = false;
    for (const digest of this.#digests) known = timingSafeEqual(digest, given) || known;
    if (known) return given.toString('base64');
    throw new ApiError({
      status: 401,
      message: authorization ? 'The API key is not known.' : 'An API key is needed: "Authorization: Bearer KEY".',
      code: 'invalid_api_key',
      headers: { 'www-authenticate': 'Bearer' },
    });
  }
}

function digestOf(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
