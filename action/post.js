'use strict';
// Runs at the job's end, also when the step was cancelled or killed: nothing of it goes on.

const { release } = require('./lib/release');

release(process.env).then(() => process.exit(0));
