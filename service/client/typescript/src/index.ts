import createClient, { type Client, type ClientOptions } from "openapi-fetch";
import type { components, paths } from "./schema.js";

/** The request and response bodies by name, such as `Schemas["Recommendations"]`. */
export type Schemas = components["schemas"];
export type { paths };

/**
 * A client of the service at `url`. `key` is an API key; other options are those of openapi-fetch.
 *
 * A call returns `{ data, error, response }`: `error` holds the service's `{ error: { code, message,
 * problems } }` where the status is not 2xx. A connection that fails throws, as fetch does. Nothing
 * is retried.
 */
export function connect(url: string, key?: string, options: ClientOptions = {}): Client<paths> {
  const client = createClient<paths>({ ...options, baseUrl: url });
  if (key !== undefined) {
    client.use({
      onRequest({ request }) {
        request.headers.set("authorization", `Bearer ${key}`);
        return request;
      },
    });
  }
  return client;
}
