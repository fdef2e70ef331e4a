// A file as a VirtualStream that is put into an answer, in the ways in which peers do that:
// `3.3.0` is the package as it is, which never delivers (it does not know `read`); `3.3.2` hands out an item for every
// empty chunk that comes with a prefilled response; `read` answers `read`, as the asking side of the package expects.
import { createReadStream } from 'node:fs';
import { VirtualStream } from '@api.global/typedrequest';

const MARKER = `${'#'.repeat(13)}CLOSING BIT${'#'.repeat(13)}`;

const encodings = {
  buffer: (chunk) => chunk,
  index: (chunk) => new Uint8Array(chunk),
  base64: (chunk) => ({ type: 'EncodedBuffer', data: `base64:${chunk.toString('base64')}` }),
};

const feed = async (stream, { path, chunkBytes = 256 * 1024, encoding = 'buffer', mode, endless = false }) => {
  for await (const chunk of createReadStream(path, { highWaterMark: chunkBytes })) {
    await stream.sendData(encodings[encoding](chunk));
  }
  if (endless) return; // the end never comes
  if (mode === 'read') await stream.sendData(MARKER);
  else await stream.close(true); // which also says at once that it is no longer alive
};

const packet = (stream, question, mainPurpose, more) => ({
  streamId: stream.streamId,
  cycleId: question.cycleId,
  cycle: 'response',
  mainPurpose,
  next: stream.sendBackpressuredArray.data.length > 0,
  backpressure: !stream.receiveBackpressuredArray.checkSpaceAvailable(),
  ...more,
});

const nextItem = (stream, question) => {
  const item = stream.sendBackpressuredArray.shift();
  if (item === MARKER) stream.keepAlive = false;
  return packet(stream, question, 'chunk', { chunkData: item });
};

export const fileStream = (archive) => {
  const mode = archive.mode ?? 'read';
  const stream = new VirtualStream();
  const asPublished = stream.handleStreamTr.bind(stream);
  stream.handleStreamTr = async (envelope) => {
    const question = envelope.request;
    const queued = stream.sendBackpressuredArray.data.length > 0;
    if (mode === 'read' && question.mainPurpose === 'read') {
      const response = queued ? nextItem(stream, question) : packet(stream, question, 'feedback');
      return { ...envelope, request: null, response };
    }
    if (mode === '3.3.2' && question.mainPurpose === 'chunk') {
      stream.receiveBackpressuredArray.push(VirtualStream.reconstituteBinaryData(question.chunkData));
      const wanted = queued && envelope.response?.backpressure === false;
      const response = wanted ? nextItem(stream, question) : packet(stream, question, 'feedback');
      return { ...envelope, request: null, response };
    }
    return asPublished(envelope);
  };
  feed(stream, { ...archive, mode }).catch(() => stream.close());
  return stream;
};
