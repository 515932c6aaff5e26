'use strict';
// What the step claims to be, and GitHub's token that proves it (docs.github.com, "OpenID Connect").
// Only that token goes to the agent: not the runner's, which could ask for others.

const { getJson } = require('./web');

const AUDIENCE = 'smidr';
const ANSWER_MS = 20_000;
const MAX_TOKEN = 16_000;

/** The `step` of `POST /github/steps`. */
async function claimOf(env, inputs, log) {
  return {
    server_url: env.GITHUB_SERVER_URL || 'https://github.com',
    repository: env.GITHUB_REPOSITORY || '',
    check_name: ['smidr', env.GITHUB_JOB, inputs.machine].filter(Boolean).join(' / ').slice(0, 200),
    workspace: inputs.workspace,
    id_token: await identityToken(env, log),
  };
}

/** Empty without `permissions: {id-token: write}`, or when GitHub does not give one. */
async function identityToken(env, log) {
  const { ACTIONS_ID_TOKEN_REQUEST_URL: url, ACTIONS_ID_TOKEN_REQUEST_TOKEN: bearer } = env;
  if (!url || !bearer) return '';
  try {
    const place = new URL(url);
    place.searchParams.set('audience', AUDIENCE);
    const headers = { authorization: `Bearer ${bearer}`, accept: 'application/json' };
    const { value } = await getJson(place, { headers, timeoutMs: ANSWER_MS, env });
    if (typeof value !== 'string' || !value || value.length > MAX_TOKEN) throw new Error('no token in the answer');
    log.mask(value);
    return value;
  } catch (error) {
    const why = error.code || error.message;
    log.text(`smidr: GitHub gave no identity token (${why}); the build is not trusted without it.`);
    return '';
  }
}

module.exports = { claimOf };
