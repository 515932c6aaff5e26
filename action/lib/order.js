'use strict';
// What the agent is asked for; see StartBuild in smidr_ci/api/http/models.py.

const path = require('node:path');
const { StepError } = require('./errors');

const VARIABLE = /\$\{([A-Za-z_][A-Za-z0-9_]*)/g;
const OWN = /^(SMIDR|YOCTO)_/;
// The runner's own, and what opens something: no config gets these, whatever it names.
const WITHHELD = /^(ACTIONS_|INPUT_|STATE_|RUNNER_TRACKING_ID$|GITHUB_TOKEN$|SMIDR_TOKEN$)/;

/** The body of `POST /builds` for the step's inputs. */
function orderFor(inputs, env, isUntrusted) {
  return {
    customer: inputs.customer,
    config_text: inputs.configText,
    config_name: inputs.config,
    directory: path.dirname(inputs.config),
    targets: inputs.targets,
    clean: inputs.clean,
    ref: env.GITHUB_REF || '',
    is_untrusted: isUntrusted,
    variables: variablesFor(inputs, env, isUntrusted),
  };
}

/** The environment's part that the config asks for; a stranger's gets what is meant for configs. */
function variablesFor(inputs, env, isUntrusted) {
  const asked = new Set([...inputs.configText.matchAll(VARIABLE)].map((match) => match[1]));
  const found = {};
  for (const name of asked) {
    const isMeant = OWN.test(name) || !isUntrusted;
    if (isMeant && !WITHHELD.test(name) && env[name] !== undefined) found[name] = env[name];
  }
  if (!isUntrusted && env.HOME) found.HOME = env.HOME;
  if (inputs.machine) {
    if (!asksForMachine(inputs.configText)) {
      throw new StepError(
        `input machine is ${inputs.machine}, and ${path.basename(inputs.config)} has a machine of its own`,
        'Let the config say `machine: ${SMIDR_MACHINE}`, with a default: ${SMIDR_MACHINE:-qemux86-64}.',
        'smidr: input machine',
      );
    }
    found.SMIDR_MACHINE = inputs.machine;
  }
  return found;
}

function asksForMachine(text) {
  return text.split('\n').some((line) => line.replace(/(^|\s)#.*$/, '').includes('${SMIDR_MACHINE'));
}

module.exports = { WITHHELD, orderFor };
