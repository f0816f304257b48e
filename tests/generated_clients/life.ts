// The life of a job by a client that openapi-typescript generates: node life.js URL KEY SOURCE
import createClient from "openapi-fetch";
import type { paths } from "./made/schema.js";

declare const process: { argv: string[] };

const [url, key, source] = process.argv.slice(2);
const api = createClient<paths>({ baseUrl: url!, headers: { Authorization: `Bearer ${key}` } });
const base = "/api/v1/remote-jobs";

function must<T>(what: string, value: T | null | undefined | false): T {
  if (value === null || value === undefined || value === false) throw new Error(what);
  return value;
}

async function create(ingestion_task_id: string): Promise<string> {
  const { data } = await api.POST(base, {
    body: { source_file_path: source!, content_type: "ts-document", ingestion_task_id },
  });
  return must("create", data).job_id;
}

async function claim() {
  const query = { worker_id: "ts", content_types: "ts-document", wait: 10, lease: 60, claim_id: crypto.randomUUID() };
  const { data } = await api.GET(`${base}/poll`, { params: { query } });
  return must("claim", must("poll", data).jobs[0]);
}

// From file to text, the download cut after 100 bytes and resumed.
const first = await create("ts-1");
const job = await claim();
must("the created job was claimed", job.job_id === first);
const path = { job_id: job.job_id };
const token = { "X-Lease-Token": job.lease_token };
const begun = await api.GET(`${base}/{job_id}/download`, {
  params: { path, header: { ...token, Range: "bytes=0-99" } },
  parseAs: "arrayBuffer",
});
must("a part is a 206", begun.response.status === 206);
const rest = await api.GET(`${base}/{job_id}/download`, {
  params: { path, header: { ...token, Range: "bytes=100-", "If-Range": must("ETag", begun.response.headers.get("ETag")) } },
  parseAs: "arrayBuffer",
});
must("the rest is a 206", rest.response.status === 206);
const range = must("Content-Range", rest.response.headers.get("Content-Range"));
const size = must("data", begun.data as unknown as ArrayBuffer).byteLength + must("data", rest.data as unknown as ArrayBuffer).byteLength;
must(`all bytes: ${size} of ${range}`, range.endsWith(`/${size}`));
const alive = await api.POST(`${base}/{job_id}/heartbeat`, { params: { path, header: token }, body: { progress: 0.5 } });
must("a heartbeat", alive.data?.status === "processing");
const done = await api.PUT(`${base}/{job_id}/result`, {
  params: { path, header: token },
  body: { success: true, content: "text" },
});
must("a result", done.data?.status === "completed");
const stored = await api.GET(`${base}/{job_id}/result`, { params: { path } });
must("the text", typeof stored.data === "object" && stored.data.content === "text");
const shown = await api.GET(`${base}/{job_id}`, { params: { path } });
must("the attempt", shown.data?.attempts[0]?.how === "completed");

// A cancel is heard.
await create("ts-2");
const other = await claim();
const its = { path: { job_id: other.job_id }, header: { "X-Lease-Token": other.lease_token } };
await api.POST(`${base}/{job_id}/cancel`, { params: { path: its.path } });
const heard = await api.POST(`${base}/{job_id}/heartbeat`, { params: its, body: {} });
must("cancel_requested", heard.data?.cancel_requested === true);
must("X-Job-Status", heard.response.headers.get("X-Job-Status") === "cancelled");
const late = await api.PUT(`${base}/{job_id}/result`, { params: its, body: { success: true } });
must("a late result is refused", late.response.status === 409 && late.error?.code === "already_finished");
console.log("lived");
