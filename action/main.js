'use strict';
// `smidr/build`: has the agent of this host build, and shows it. Node 20 or newer, no dependencies.

const { Stop } = require('./lib/patience');
const { main } = require('./lib/run');

const stop = new Stop();
stop.listenTo(process);
process.stdout.on('error', () => {}); // nobody reads any more; the build is followed all the same
main(process.env, stop).then((code) => process.exit(code));
