// Uploads a file by tus-js-client: `node upload.mjs URL KEY FILE`; prints the upload's address.
import fs from "node:fs";
import { Upload } from "tus-js-client";

const [endpoint, key, path] = process.argv.slice(2);
const upload = new Upload(fs.createReadStream(path), {
  endpoint,
  headers: { Authorization: `Bearer ${key}` },
  metadata: { filename: "from-node.bin", filetype: "application/x-test" },
  chunkSize: 16 * 1024 * 1024,
  uploadSize: fs.statSync(path).size,
  retryDelays: Array(60).fill(200),
  onError: (error) => {
    console.error(String(error));
    process.exit(1);
  },
  onSuccess: () => console.log(upload.url),
});
upload.start();
