// The live page: what did not change stays in place, with what is focused or selected in it; and a page that nobody sees
// holds no connection: a browser has six for each server, and every open tab would take one.
"use strict";

const STOP_AFTER_MS = 10000;
const shown = new WeakMap();
let source = null;
let stopping = 0;

htmx.createEventSource = (address) => {
  source = new EventSource(address);
  return source;
};

document.addEventListener("htmx:sseBeforeMessage", (event) => {
  if (shown.get(event.target) === event.detail.data) event.preventDefault();
  else shown.set(event.target, event.detail.data);
});

function stop() {
  if (source) source.close();
  source = null;
}

function start() {
  if (source && source.readyState !== EventSource.CLOSED) return;
  const place = document.getElementById("live");
  const again = place.cloneNode(true);
  place.replaceWith(again);
  htmx.process(again);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(stopping);
  if (document.hidden) stopping = setTimeout(stop, STOP_AFTER_MS);
  else start();
});
