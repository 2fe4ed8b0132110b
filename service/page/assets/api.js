/** Calls of the server, under whatever path it is served. */

const ROOT = new URL("../../", import.meta.url); // of /page/assets/

let key = null; // in memory only

export function useKey(text) {
  key = text || null;
}

export class CallError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The answer, parsed. Throws CallError with the server's words, or that it cannot be reached. */
export async function call(method, path, { body, signal, text = false } = {}) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(new URL(path, ROOT), {
      method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new CallError(0, "unreachable", "The server cannot be reached.");
  }
  if (!response.ok) {
    const error = (await response.json().catch(() => ({}))).error ?? {};
    throw new CallError(response.status, error.code, error.message ?? `Status ${response.status}`);
  }
  const answer = text ? await response.text() : await response.json();
  if (!text) answer.server_ms = serverTime(response.headers.get("server-timing"));
  return answer;
}

function serverTime(header) {
  const total = /total;dur=([\d.]+)/.exec(header ?? "");
  return total ? Number(total[1]) : null;
}

/** Runs only the latest of its calls: a newer one cancels what the older still waits for. */
export function latest(work) {
  let controller = null;
  return async (...parameters) => {
    controller?.abort();
    const mine = (controller = new AbortController());
    try {
      return await work(mine.signal, ...parameters);
    } catch (error) {
      if (error.name !== "AbortError") throw error;
      return undefined;
    }
  };
}
