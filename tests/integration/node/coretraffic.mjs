// A client of coreflow's internal server, like Coretraffic: it dials, tags itself and answers `updateRouting`.
// Options: `url`; `socket`: `ws`, or `builtin` for the one that newer Nodes have built in; `encoder`: `plain` or
// `smartjson`; `generation`: `3`, or `8` for the envelopes of newer peers, with their strictness; `tag`, null for none,
// and its `payload`; `relay`, with which it is a proxy too (see `tlsproxy.mjs`), and for that `port` and `connectSeconds`.
import { TypedHandler, TypedRequest, TypedResponseError, TypedRouter, TypedTarget } from '@api.global/typedrequest';
import * as smartjson from '@push.rocks/smartjson';
import { WebSocket as BuiltinSocket } from 'undici';
import { WebSocket as WsSocket } from 'ws';
import { obey, options, say, sleep, within } from './lines.mjs';
import { openProxy } from './tlsproxy.mjs';

const { url, socket: kind = 'ws', encoder = 'plain', generation = '3', tag = 'coretraffic', payload = {} } = options;
const Socket = kind === 'builtin' ? (globalThis.WebSocket ?? BuiltinSocket) : WsSocket;
const json = encoder === 'smartjson' ? smartjson : JSON;
const newer = generation === '8';
const proxy = options.relay
  ? await openProxy({ ...options, onFailure: (failure) => say({ event: 'failed', ...failure }) })
  : null;

const state = { answer: { status: 'ok', errorText: '' }, error: null, crash: false, silent: false, delayMs: 0 };
const received = [];
const raw = [];
const instances = new Map(); // correlation id -> requestInstanceId, and the method
let counter = 0;
let socket = null;

const router = new TypedRouter();
router.addTypedHandler(
  new TypedHandler('updateRouting', async (request) => {
    received.push(request);
    say({ event: 'updateRouting', routes: request?.reverseConfigs?.length ?? null });
    if (state.delayMs) await sleep(state.delayMs);
    if (state.error) throw new TypedResponseError(state.error.text, state.error.data);
    if (state.crash) throw new Error('crashed on request');
    try {
      proxy?.route(request.reverseConfigs);
    } catch (error) {
      return { status: 'error', errorText: error.message };
    }
    return state.answer;
  }),
);

// ---------------------------------------------------------------- the newer generation

// What 8.x insists on, according to what was measured on it; the package itself is not on the registry.
const isAcceptableRequest = (envelope) =>
  Boolean(envelope.method && envelope.correlation?.id) &&
  envelope.correlation.phase === 'request' &&
  envelope.request !== null &&
  typeof envelope.request === 'object';

const isAcceptableAnswer = (envelope) => {
  const asked = instances.get(envelope.correlation?.id);
  return (
    asked !== undefined &&
    envelope.correlation.phase === 'response' &&
    envelope.method === asked.method &&
    envelope.requestInstanceId === asked.instance &&
    Object.hasOwn(envelope, 'response') &&
    (envelope.error === undefined || typeof envelope.error?.text === 'string')
  );
};

// ---------------------------------------------------------------- the connection

const transmit = (envelope) => {
  if (newer && envelope.correlation?.phase === 'request') {
    const instance = `uni_${String(++counter).padStart(24, '0')}`;
    instances.set(envelope.correlation.id, { instance, method: envelope.method });
    envelope = { ...envelope, requestInstanceId: instance };
  }
  socket.send(json.stringify(envelope));
};

const take = async (text) => {
  raw.push(text);
  if (raw.length > 1000) raw.shift();
  const envelope = json.parse(text);
  if (newer) {
    const isAnswer = envelope.correlation?.phase === 'response';
    if (!(isAnswer ? isAcceptableAnswer(envelope) : isAcceptableRequest(envelope))) {
      say({ event: 'ignored', method: envelope.method ?? null });
      return;
    }
    delete envelope.localData;
  }
  const answered = await router.routeAndAddResponse(envelope);
  if (!answered || state.silent) return;
  if (newer) delete answered.localData;
  socket.send(json.stringify(answered));
};

const target = new TypedTarget({ typedRouterRef: router, postMethodWithTypedRouter: async (envelope) => transmit(envelope) });
const ask = (method, body, seconds = 30) => within(seconds, new TypedRequest(target, method).fire(body));

const dial = () =>
  new Promise((resolve, reject) => {
    socket = new Socket(url.replace(/^http/, 'ws'));
    socket.onmessage = ({ data }) => take(data).catch((error) => say({ event: 'failed', error: error.message }));
    socket.onopen = () => resolve();
    socket.onerror = ({ message }) => reject(new Error(message || 'cannot connect'));
    socket.onclose = ({ code, reason }) => say({ event: 'close', code, reason });
  });

const connect = async () => {
  await dial();
  const port = socket._socket?.localPort ?? null;
  if (tag !== null) await ask('__typedsocket_setTag', { name: tag, payload });
  say({ event: 'open', port });
  return { port };
};

obey({
  connect,
  answer: (change) => void Object.assign(state, change),
  received: () => received,
  raw: () => raw,
  request: ({ method, body = {}, seconds }) => ask(method, body, seconds),
  send: ({ text, bytes }) => socket.send(bytes === undefined ? text : 'x'.repeat(bytes)),
  close: ({ code, reason }) => (code ? socket.close(code, reason) : socket.close()),
  terminate: () => socket.terminate(),
});

say({ event: 'ready', port: proxy?.port ?? null }); // of the proxy; `connect` tells the port of the connection
