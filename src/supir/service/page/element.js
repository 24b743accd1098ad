// An element with these properties.
export function element(tag, properties = {}) { return Object.assign(document.createElement(tag), properties); }
