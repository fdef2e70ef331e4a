// A stand-in for Cloudly on the packages that the real one is built with. What it knows and how it behaves is decided
// by the test, see `obey` at the end; `../node_harness.py` has the commands as Python methods.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { TypedHandler, TypedRequest, TypedResponseError, TypedRouter, TypedTarget } from '@api.global/typedrequest';
import * as smartjson from '@push.rocks/smartjson';
import { ControllerRegistry, SmartServe } from '@push.rocks/smartserve';
import { obey, options, say, sleep, within } from './lines.mjs';
import { fileStream } from './streams.mjs';

// ---------------------------------------------------------------- what it knows

const world = {
  tokens: ['token'],
  identitySeconds: 3600,
  identityHasBeginning: false, // a token that says when it was issued
  cluster: { id: 'cluster', data: { name: 'cluster', userId: 'user', nodes: [], sshKeys: [] } },
  services: [],
  images: [],
  registries: [],
  bundles: [],
  groups: [],
  certificates: {}, // by domain
  platform: null,
  gateway: undefined, // not handed out at all
  archives: {}, // by `imageId:version`: {path, mode, chunkBytes, encoding, endless}
  pageSize: 1000, // of lists of copies
  missing: [], // methods that this Cloudly does not have
  generation: '3.3.0', // or 3.3.2: no localData in ordinary answers, crashes are errors
};
const manners = new Map(); // method -> how to misbehave
const issued = new Map(); // jwt -> expiresAt
const seen = [];
const peers = new Map();
const whole = new Map(); // name of a copy -> {sha256, size, data, backups}
const parts = new Map(); // the same of copies that have arrived in part, with `received`
const trouble = { slices: 0, cutBefore: [], cutAfter: [], flip: [] }; // by number of a slice, from 1 on, in and out
let identities = 0;

// ---------------------------------------------------------------- what it answers

const found = (list, id) => {
  const record = list.find((candidate) => candidate.id === id);
  if (!record) throw new TypedResponseError('there is no such record', { id });
  return record;
};

const refuse = (text) => {
  throw new TypedResponseError(text, {});
};

const flipped = (data) => {
  const copy = Buffer.from(data);
  if (copy.length) copy[copy.length >> 1] ^= 1;
  return copy;
};

// What happens to a slice on its way: `act` gets a function that its bytes go through.
const slice = (peer, act) => {
  const number = ++trouble.slices;
  if (trouble.cutBefore.includes(number)) {
    peer?.terminate();
    return {};
  }
  const answer = act(trouble.flip.includes(number) ? flipped : (data) => data);
  if (trouble.cutAfter.includes(number)) peer?.terminate();
  return answer;
};

const archive = {
  listBackupArchiveObjects: ({ backupId, prefix = '', cursor = '' }) => {
    const names = [...whole.keys()].sort().filter((name) => name.startsWith(prefix) && name > cursor);
    const chosen = names.filter((name) => !backupId || whole.get(name).backups.has(backupId));
    const page = chosen.slice(0, world.pageSize);
    const objects = page.map((name) => ({ objectId: name, sizeBytes: whole.get(name).size, sha256: whole.get(name).sha256 }));
    return { objects, ...(chosen.length > page.length && { nextCursor: page.at(-1) }) };
  },
  putBackupArchiveObject: ({ objectId, sha256, sizeBytes, offset, final, dataBase64, backupId }, peer) =>
    slice(peer, (through) => {
      const data = through(Buffer.from(dataBase64, 'base64'));
      const kept = whole.get(objectId);
      if (kept) {
        if (kept.sha256 !== sha256 || kept.size !== sizeBytes) refuse('another copy is there under this name');
        if (backupId) kept.backups.add(backupId);
        return { receivedBytes: kept.size, stored: true };
      }
      if (offset < 0 || offset + data.length > sizeBytes) refuse('the slice is not within the size of the copy');
      let part = parts.get(objectId);
      if (part?.sha256 !== sha256 || part?.size !== sizeBytes) {
        part = { sha256, size: sizeBytes, data: Buffer.alloc(sizeBytes), received: 0, backups: new Set() };
        parts.set(objectId, part);
      }
      if (backupId) part.backups.add(backupId);
      if (offset > part.received) return { receivedBytes: part.received, stored: false };
      data.copy(part.data, offset);
      part.received = Math.max(part.received, offset + data.length);
      if (!final) return { receivedBytes: part.received, stored: false };
      parts.delete(objectId);
      const digest = createHash('sha256').update(part.data).digest('hex');
      if (part.received !== sizeBytes || digest !== sha256) return { receivedBytes: 0, stored: false };
      whole.set(objectId, part);
      return { receivedBytes: sizeBytes, stored: true };
    }),
  getBackupArchiveObject: ({ objectId, offset, maxBytes }, peer) =>
    slice(peer, (through) => {
      const kept = whole.get(objectId) ?? refuse('there is no such copy');
      if (offset < 0 || offset > kept.data.length) refuse('nothing is at this offset');
      const data = through(kept.data.subarray(offset, offset + maxBytes));
      const final = offset + data.length === kept.data.length;
      return { dataBase64: data.toString('base64'), sizeBytes: kept.data.length, final };
    }),
};

const methods = {
  ...archive,
  getIdentityByToken: ({ token }) => {
    if (!world.tokens.includes(token)) throw new TypedResponseError('token is not valid', {});
    const expiresAt = Date.now() + world.identitySeconds * 1000;
    const claims = Buffer.from(JSON.stringify({ iat: Date.now() / 1000 })).toString('base64url');
    const jwt = world.identityHasBeginning ? `jwt.${claims}.${++identities}` : `jwt-${++identities}`;
    issued.set(jwt, expiresAt);
    return { identity: { name: 'coreflow', userId: 'user', type: 'machine', role: 'cluster', expiresAt, jwt } };
  },
  getClusterConfig: () => ({
    configData: world.cluster,
    services: world.services,
    externalGatewayConfig: world.gateway,
  }),
  getServices: () => ({ services: world.services }),
  getServiceById: ({ serviceId }) => ({ service: found(world.services, serviceId) }),
  getImage: ({ imageId }) => ({ image: found(world.images, imageId) }),
  getAllImages: () => ({ images: world.images }),
  getExternalRegistries: () => ({ registries: world.registries }),
  getExternalRegistryById: ({ id }) => ({ registry: found(world.registries, id) }),
  getSecretBundles: () => ({ secretBundles: world.bundles }),
  getSecretBundleById: ({ secretBundleId }) => ({ secretBundle: found(world.bundles, secretBundleId) }),
  getSecretGroups: () => ({ secretGroups: world.groups }),
  getSecretGroupById: ({ secretGroupId }) => ({ secretGroup: found(world.groups, secretGroupId) }),
  getCertificateForDomain: ({ domainName }) => {
    const certificate = world.certificates[domainName];
    if (!certificate) throw new TypedResponseError('there is no certificate for this domain', {});
    return { certificate };
  },
  getPlatformDesiredState: () => ({ desiredState: world.platform }),
  reportPlatformBindingStatus: () => ({}),
  getExternalGatewayConfig: () => ({ externalGatewayConfig: world.gateway ?? null }),
  cloudlyStatus: () => ({}),
  getOrSendServerMetrics: () => ({}),
  log: () => ({}),
  pullImageVersion: ({ imageId, versionString }) => {
    const archive = world.archives[`${imageId}:${versionString}`];
    if (!archive) throw new TypedResponseError('there is no such image version', {});
    return { imageStream: fileStream(archive) };
  },
};
const OPEN_TO_ALL = new Set(['getIdentityByToken', 'log', 'getOrSendServerMetrics']);

const answer = (method) => async (request, tools) => {
  const manner = manners.get(method) ?? {};
  try {
    if (manner.error) throw new TypedResponseError(manner.error.text, manner.error.data);
    if (manner.crash) throw new Error('crashed on request');
    if (!OPEN_TO_ALL.has(method) && !(issued.get(request?.identity?.jwt) > Date.now())) {
      throw new TypedResponseError('identity is not valid', { hint: 'send identity.jwt' });
    }
    if ('response' in manner) return manner.response;
    return methods[method](request, tools?.localData?.peer);
  } catch (error) {
    if (error instanceof TypedResponseError || world.generation === '3.3.0') throw error;
    throw new TypedResponseError('Internal server error', {});
  }
};

// ---------------------------------------------------------------- how it behaves on the wire

class StandInRouter extends TypedRouter {
  getTypedHandlerAndRouter(method, checked) {
    return world.missing.includes(method) ? null : super.getTypedHandlerAndRouter(method, checked);
  }

  async routeAndAddResponse(envelope, routeOptions) {
    const isRequest = envelope.correlation?.phase === 'request' && envelope.method !== '##VirtualStream##';
    if (!isRequest) return super.routeAndAddResponse(envelope, routeOptions);
    const { method, correlation } = envelope;
    const peer = envelope.localData?.peer;
    const { localData: _, ...asReceived } = envelope;
    const request = method === 'putBackupArchiveObject' ? { ...asReceived.request, dataBase64: null } : asReceived.request;
    seen.push({ method, connection: peer?.id ?? null, envelope: structuredClone({ ...asReceived, request }) });
    say({ event: 'request', method, connection: peer?.id ?? null });

    const manner = manners.get(method);
    if (manner?.delayMs) await sleep(manner.delayMs);
    const answered = manner?.silent ? null : await super.routeAndAddResponse(envelope, routeOptions);
    if (manner && --manner.times <= 0) manners.delete(method);
    if (!answered) return null;
    if (world.generation !== '3.3.0') {
      delete answered.localData;
      if (answered.error) answered.error.data ??= {};
    }
    if (manner?.retry) answered.retry = manner.retry;
    if (manner?.foreignId) answered.correlation = { ...correlation, id: 'uni_000000000000000000000000', phase: 'response' };
    if (manner?.twice) peer?.send(JSON.stringify(answered));
    return answered;
  }
}

const router = new StandInRouter();
for (const method of Object.keys(methods)) router.addTypedHandler(new TypedHandler(method, answer(method)));

// As the tag handlers of TypedSocket's server side do, which is not on the registry.
const PAYLOAD = '__typedsocket_tag__';
router.addTypedHandler(
  new TypedHandler('__typedsocket_setTag', async ({ name, payload }, tools) => {
    const { peer } = tools.localData;
    peer.tags.add(name);
    peer.data.set(PAYLOAD + name, payload);
    say({ event: 'tag', connection: peer.id, name });
    return { success: true };
  }),
);
router.addTypedHandler(
  new TypedHandler('__typedsocket_removeTag', async ({ name }, tools) => {
    const { peer } = tools.localData;
    peer.tags.delete(name);
    peer.data.delete(PAYLOAD + name);
    return { success: true };
  }),
);

// As typedserver does, which is not on the registry either.
ControllerRegistry.addRoute('/typedrequest', 'POST', async (context) => {
  const body = await context.json().catch(() => undefined);
  if (body === undefined || body === null || typeof body !== 'object') {
    return new Response(JSON.stringify({ error: 'Invalid request' }), { status: 400 });
  }
  const answered = await router.routeAndAddResponse(body);
  return new Response(smartjson.stringify(answered), { headers: { 'Content-Type': 'application/json' } });
});

// ---------------------------------------------------------------- where it listens

let server = null;
let port = options.port ?? 0;

const listen = async () => {
  const { tls } = options;
  server = new SmartServe({
    port,
    hostname: options.host ?? '127.0.0.1',
    ...(tls && { tls: { cert: readFileSync(tls.cert), key: readFileSync(tls.key) } }),
    websocket: {
      typedRouter: router,
      onConnectionOpen: (peer) => {
        peers.set(peer.id, peer);
        say({ event: 'open', connection: peer.id, url: peer.url });
      },
      onConnectionClose: (peer) => {
        peers.delete(peer.id);
        say({ event: 'close', connection: peer.id });
      },
    },
  });
  await server.start();
  port = server.adapter.server.address().port; // SmartServe reports the port that it was asked for
};

const hangUp = async () => {
  for (const peer of peers.values()) peer.terminate(); // SmartServe waits for them
  await server.stop();
};

const chosen = ({ connection, tag }) =>
  [...peers.values()].filter((peer) => (connection ? peer.id === connection : !tag || peer.tags.has(tag)));

const push = async (peer, method, body, seconds) => {
  const target = new TypedTarget({
    typedRouterRef: router,
    postMethodWithTypedRouter: async (payload) => peer.send(JSON.stringify(payload)),
  });
  try {
    return { connection: peer.id, response: await within(seconds, new TypedRequest(target, method).fire(body)) };
  } catch (error) {
    return { connection: peer.id, error: error.errorText ?? error.message, data: error.errorData ?? null };
  }
};

await listen();
obey({
  know: ({ documents }) => void Object.assign(world, documents),
  revoke: () => issued.clear(),
  misbehave: ({ method, times = Infinity, ...manner }) => void manners.set(method, { times, ...manner }),
  behave: () => manners.clear(),
  push: ({ method, body = {}, seconds = 30, ...choice }) =>
    Promise.all(chosen(choice).map((peer) => push(peer, method, body, seconds))),
  flood: ({ method, body = {}, count, ...choice }) => {
    for (const peer of chosen(choice)) {
      for (let number = 1; number <= count; number++) {
        const correlation = { id: `flood-${number}`, phase: 'request' }; // nobody waits for the answers
        peer.send(JSON.stringify({ method, request: body, response: null, correlation }));
      }
    }
  },
  send: ({ text, ...choice }) => chosen(choice).map((peer) => peer.send(text)).length,
  drop: ({ code, reason, ...choice }) =>
    chosen(choice).map((peer) => (code ? peer.close(code, reason) : peer.terminate())).length,
  connections: () =>
    [...peers.values()].map((peer) => ({
      id: peer.id,
      url: peer.url,
      tags: Object.fromEntries([...peer.tags].map((name) => [name, peer.data.get(PAYLOAD + name) ?? null])),
    })),
  seen: ({ method, forget = false }) => {
    const matching = seen.filter((request) => !method || request.method === method);
    if (forget) seen.length = 0;
    return matching;
  },
  disturb: (change) => void Object.assign(trouble, change),
  copies: () =>
    [...whole].map(([name, { data, backups }]) => ({ name, data: data.toString('base64'), backups: [...backups].sort() })),
  arriving: () => Object.fromEntries([...parts].map(([name, { received }]) => [name, received])),
  spoil: ({ copy, data }) => void (whole.get(copy).data = Buffer.from(data, 'base64')),
  lose: ({ copy }) => {
    for (const kept of [whole, parts]) copy ? kept.delete(copy) : kept.clear();
  },
  stop: hangUp,
  start: async () => {
    await listen();
    return { port };
  },
});
say({ event: 'ready', port });
