// A mask as a PNG of one bit a pixel, in letters, as requests hold it.

export const INLINE = 'data:image/png;base64,';
const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const OPAQUE = 128;   // from so much of it on a pixel is white

// canvas: what is painted in it, in whatever colour, is white.
export async function maskText(canvas) {
  const {width, height} = canvas, {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
  const row = 1 + Math.ceil(width / 8), lines = new Uint8Array(row * height);   // each begins with its filter: none
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (data[4 * (y * width + x) + 3] >= OPAQUE) lines[y * row + 1 + (x >> 3)] |= 128 >> (x & 7);
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 1);   // bits; then grey, and no more
  const parts = [Uint8Array.from(SIGNATURE), chunk('IHDR', new Uint8Array(header.buffer)), chunk('IDAT', await deflated(lines)), chunk('IEND', new Uint8Array())];
  return INLINE + btoa(parts.map(part => Array.from(part, byte => String.fromCharCode(byte)).join('')).join(''));
}

// The picture that a text holds.
export function maskPicture(text) {
  const bytes = Uint8Array.from(atob(text.slice(INLINE.length)), letter => letter.charCodeAt());
  return createImageBitmap(new Blob([bytes], {type: 'image/png'}));
}

const deflated = async bytes => new Uint8Array(await new Response(
  new Blob([bytes]).stream().pipeThrough(new CompressionStream('deflate'))).arrayBuffer());

function chunk(kind, data) {
  const found = new DataView(new ArrayBuffer(12 + data.length)), bytes = new Uint8Array(found.buffer);
  found.setUint32(0, data.length);
  bytes.set(Array.from(kind, letter => letter.charCodeAt()), 4);
  bytes.set(data, 8);
  found.setUint32(8 + data.length, checksum(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

// CRC-32.
function checksum(bytes) {
  let found = ~0;
  for (const byte of bytes) {
    found ^= byte;
    for (let k = 0; k < 8; k++) found = found >>> 1 ^ (found & 1 ? 0xedb88320 : 0);
  }
  return ~found >>> 0;
}
