'use strict';
// `smidr/build`: has the agent of this host build, and shows it. Node 20 or newer, no dependencies.

const { Stop } = require('./lib/patience');
const { main } = require('./lib/run');

const stop = new Stop();
stop.listenTo(process);
main(process.env, stop).then((code) => process.exit(code));
