// Upload a file: `node tus_upload.js FILE`, where `npm install tus-js-client` was called.
const fs = require('node:fs');
const path = require('node:path');
const tus = require('tus-js-client');

const { FILEEXPORT_TOKEN, FILEEXPORT_URL } = process.env;
const file = process.argv[2];
const upload = new tus.Upload(fs.createReadStream(file), {
  endpoint: `${FILEEXPORT_URL}-/uploads?dir=/dumps`,
  metadata: { filename: path.basename(file) },
  headers: { Authorization: `Bearer ${FILEEXPORT_TOKEN}` },
  retryDelays: [0, 1000, 3000, 5000],
  onSuccess: () => console.log(upload.url),
  onError: (error) => {
    console.error(error.message);
    process.exitCode = 1;
  },
});
upload.start();
