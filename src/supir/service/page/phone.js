// The page's address for a phone, as a code that its camera reads.

import {addressFor, code} from './api.js';
import {put} from './text.js';

export function phone(dialog, button, elsewhere) {
  const image = dialog.querySelector('img'), link = dialog.querySelector('a'), about = dialog.querySelector('p');
  button.addEventListener('click', async () => {
    const address = addressFor(elsewhere);
    put(about, address ? 'phone.about' : 'phone.alone');
    link.textContent = address ?? 'supir web --host 0.0.0.0';
    if (address) link.href = address; else link.removeAttribute('href');
    dialog.showModal();
    if (!address || image.src) return;
    try {
      image.src = await code(address);
      image.hidden = false;
      put(image, 'phone.code', {}, 'alt');
    } catch { /* the address is there to be typed */ }
  });
}
