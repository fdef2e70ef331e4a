// What makes `coretraffic.mjs` a proxy: it ends TLS for the hosts that it was sent, by SNI, and asks their destinations in
// turn. Every request is a new connection through the relay (`netns_relay.py`), and none is tried twice: whatever goes
// wrong shows, as 502 with the reason, or, once an answer has begun, as one that breaks off.
import { createServer } from 'node:https';
import { request as ask } from 'node:http';
import { connect } from 'node:net';
import { pipeline } from 'node:stream';
import { createSecureContext } from 'node:tls';

const ofOneConnection = ['connection', 'keep-alive', 'transfer-encoding', 'upgrade'];

const passedOn = (headers) => Object.fromEntries(Object.entries(headers).filter(([name]) => !ofOneConnection.includes(name)));

// A connection to an address on the other side of the relay.
const reach = (relay, address, port, seconds) =>
  new Promise((resolve, reject) => {
    const socket = connect(relay);
    socket.on('error', reject);
    socket.once('close', () => reject(new Error('the relay hung up')));
    socket.once('data', (line) => (String(line) === 'ok\n' ? resolve(socket) : reject(new Error(String(line).trim()))));
    socket.write(`${address} ${port} ${seconds}\n`);
  });

// `relay` is the path of its socket; `port` 0 is any; `connectSeconds` is how long connecting may take.
export const openProxy = async ({ relay, port = 0, connectSeconds = 1, onFailure = () => {} }) => {
  let routes = new Map();
  const turns = new Map(); // host -> how many requests so far; an update does not begin anew

  const serve = async (request, response) => {
    const host = (request.headers.host ?? '').replace(/:\d+$/, '');
    const route = routes.get(host);
    if (!route) return void response.writeHead(404).end(`no route for ${host}\n`);
    const turn = turns.get(host) ?? 0;
    turns.set(host, turn + 1);
    const failed = (error) => {
      onFailure({ host, error: error.message });
      if (response.headersSent) return void response.destroy();
      response.writeHead(502, { 'content-type': 'text/plain' }).end(`${error.message}\n`);
    };
    let socket;
    try {
      if (!route.destinations.length) throw new Error('no destinations');
      const [address, destinationPort] = route.destinations[turn % route.destinations.length];
      socket = await reach(relay, address, destinationPort, connectSeconds);
      const asked = ask({
        createConnection: () => socket,
        method: request.method,
        path: request.url,
        headers: { ...passedOn(request.headers), connection: 'close' },
      });
      response.once('close', () => socket.destroy()); // answered, or nobody waits any more
      asked.once('error', (error) => failed(new Error(`${address}:${destinationPort}: ${error.message}`)));
      asked.once('response', (answer) => {
        response.writeHead(answer.statusCode, passedOn(answer.headers));
        pipeline(answer, response, () => {});
      });
      pipeline(request, asked, () => {});
    } catch (error) {
      socket?.destroy();
      failed(error);
    }
  };

  const server = createServer(
    {
      SNICallback: (host, tell) => {
        const route = routes.get(host);
        tell(route ? null : new Error(`no certificate for ${host}`), route?.context);
      },
    },
    serve,
  );
  server.on('tlsClientError', () => {}); // its own affair
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));

  return {
    port: server.address().port,
    // The complete table, in place of the last one, which stays if this one cannot be used.
    route: (reverseConfigs) => {
      routes = new Map(
        reverseConfigs.map(({ hostName, destinationIps, destinationPorts, privateKey, publicKey }) => [
          hostName,
          {
            destinations: destinationIps.map((address, k) => [address, destinationPorts[k % destinationPorts.length]]),
            context: createSecureContext({ key: privateKey, cert: publicKey }),
          },
        ]),
      );
    },
  };
};
